"""A strict subset of YAML: plain values, each with its line and column, and every error reported.

Scalars follow YAML 1.2, so `1e-3` is a number while `on`, `1:30` and `017` are text; duplicate keys, anchors,
aliases and tags are errors (PyYAML itself reads YAML 1.1, and of two equal keys the last wins).
"""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from maml_cli.config import limits
from maml_cli.config.formatting import Key, format_key
from maml_cli.errors import shorten

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]*|)(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    **{word: None for word in ("", "~", "null", "Null", "NULL")},
    **{word: True for word in ("true", "True", "TRUE")},
    **{word: False for word in ("false", "False", "FALSE")},
    **{word: math.inf for word in (".inf", "+.inf", ".Inf")},
    **{word: -math.inf for word in ("-.inf", "-.Inf")},
    **{word: math.nan for word in (".nan", ".NaN")},
}


DEFAULT_LOADER: Any = yaml.SafeLoader
QUICK_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The loader of libyaml, where PyYAML has it: the same values in a tenth of the time, but other messages, and it takes
tabs where the default does not."""


class Mark(NamedTuple):
    """A position in a file; lines and columns count from 1."""

    line: int
    column: int


class Location(NamedTuple):
    """The positions of a key and of its value; both are the same for an item of a list."""

    key: Mark
    value: Mark


class YamlError(NamedTuple):
    """An error at a position in a file."""

    mark: Mark
    message: str


class Document(NamedTuple):
    """A YAML document.

    value: its value, without what is in error; None for an empty document.
    locations: the position of every key and list item.
    errors: every error.
    """

    value: Any
    locations: dict[Key, Location]
    errors: list[YamlError]


def parse_list(text: str) -> list[Any]:
    """The values of a flow list that is written without its brackets, such as `1,5` or `[40,40],[80,80]`.

    Raises ValueError with the first error.
    """
    document = parse(f"[{text}]")
    if document.errors or not isinstance(document.value, list):
        raise ValueError(document.errors[0].message if document.errors else "must be values separated by commas")
    return document.value


def parse(text: str, *, loader: Any = DEFAULT_LOADER) -> Document:
    """Read one YAML document. Bad YAML does not raise: its errors are in `errors`.

    loader: the loader of PyYAML whose events are read; messages are those of the default.

    PyYAML's events are read one by one, up to the limits on the size of a config: no tree of nodes is built.
    """
    if len(text) > limits.MAX_CHARACTERS:
        return Document(None, {}, [YamlError(Mark(1, 1), limits.TOO_LONG)])
    locations: dict[Key, Location] = {}
    errors: list[YamlError] = []
    value = None
    try:
        events = _events(text, errors, loader)
        for event in events:
            value = _value(event, (), events, locations, errors)
    except StopIteration:  # the events end at a limit, inside a value
        return Document(None, {}, errors)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = shorten(error.problem or error.context or "", 120)
        return Document(None, {}, [YamlError(_mark(mark), f"not valid YAML: {problem}")])
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        return Document(None, {}, [YamlError(Mark(line, column), f"not valid YAML: {error.reason}")])
    return Document(value, locations, errors)


def _events(text: str, errors: list[YamlError], loader: Any) -> Iterator[yaml.Event]:
    """The events of the values in `text`, up to the first error of its size or of a second document.

    Appends that error, and all anchors, aliases and tags, to `errors`.
    """
    num_values, depth, num_documents = 0, 0, 0
    for event in yaml.parse(text, Loader=loader):
        mark = _mark(event.start_mark)
        num_documents += isinstance(event, yaml.DocumentStartEvent)
        num_values += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        limit = _exceeded_limit(num_documents, num_values, depth)
        if limit:
            errors.append(YamlError(mark, limit))
            return
        if isinstance(event, yaml.AliasEvent):
            errors.append(YamlError(mark, f"alias *{shorten(str(event.anchor), 60)}: write the value out"))
        elif isinstance(event, yaml.NodeEvent):
            if event.anchor:
                anchor = shorten(event.anchor, 60)
                errors.append(YamlError(mark, f"anchor &{anchor}: write the value out where it is needed"))
            tag = getattr(event, "tag", None)
            if tag not in (None, "!"):
                errors.append(YamlError(mark, f"tag {shorten(tag, 60)}: only plain values are read"))
        if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            yield event


def _exceeded_limit(num_documents: int, num_values: int, depth: int) -> str | None:
    if num_documents > 1:
        return "a second document; one file holds one config"
    if num_values > limits.MAX_VALUES:
        return limits.TOO_MANY
    return limits.TOO_DEEP if depth > limits.MAX_DEPTH else None


def _value(
    event: yaml.Event,
    path: Key,
    events: Iterator[yaml.Event],
    locations: dict[Key, Location],
    errors: list[YamlError],
) -> Any:
    """The value that begins with `event`; its other events are taken from `events`.

    The positions of its keys go to `locations`, duplicate keys and the like to `errors`.
    """
    if isinstance(event, yaml.MappingStartEvent):
        return _mapping(path, events, locations, errors)
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Any] = []
        while not isinstance(item := next(events), yaml.CollectionEndEvent):
            mark, key = _mark(item.start_mark), (*path, len(items))
            if not isinstance(item, yaml.AliasEvent):
                locations[key] = Location(mark, mark)
                items.append(_value(item, key, events, locations, errors))
        return items
    if not isinstance(event, yaml.ScalarEvent):
        return None  # an alias, which is an error
    return _text(event, errors) if event.style else scalar(event.value)


def _mapping(
    path: Key, events: Iterator[yaml.Event], locations: dict[Key, Location], errors: list[YamlError]
) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    while not isinstance(key_event := next(events), yaml.CollectionEndEvent):
        mark = _mark(key_event.start_mark)
        if not isinstance(key_event, yaml.ScalarEvent):
            errors.append(YamlError(mark, "a key must be a single word"))
            _value(key_event, path, events, {}, [])
            _value(next(events), path, events, {}, [])
            continue
        key = (*path, _text(key_event, errors))
        value_event = next(events)
        if key[-1] in mapping:
            first = locations[key].key.line
            errors.append(YamlError(mark, f"{format_key(key)}: duplicate key, first on line {first}"))
            _value(value_event, path, events, {}, [])
            continue
        if isinstance(value_event, yaml.AliasEvent):
            continue
        locations[key] = Location(mark, _mark(value_event.start_mark))
        mapping[str(key[-1])] = _value(value_event, key, events, locations, errors)
    return mapping


def _text(event: yaml.ScalarEvent, errors: list[YamlError]) -> str:
    """The text of a scalar, with the surrogate pairs by which JSON escapes characters beyond U+FFFF joined."""
    text = str(event.value)
    if not limits.is_no_text(text):
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        errors.append(YamlError(_mark(event.start_mark), limits.NOT_TEXT))
        return ascii(text)


def scalar(text: str) -> Any:
    """The value of an unquoted scalar: null, a boolean, a number, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text) if len(text) <= 100 else float(text)
    if _FLOAT.fullmatch(text) and any(character.isdigit() for character in re.split("[eE]", text)[0]):
        return float(text)
    return text


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1) if mark else Mark(1, 1)
