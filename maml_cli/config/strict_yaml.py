"""A strict subset of YAML: plain values, each with its line and column, and every error reported.

Scalars follow YAML 1.2, so `1e-3` is a number while `on`, `1:30` and `017` are text; duplicate keys, anchors,
aliases and tags are errors (PyYAML itself reads YAML 1.1, and of two equal keys the last wins).
"""

import math
import re
from typing import Any, NamedTuple

import yaml

from maml_cli.config.formatting import Key, format_key

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


def parse(text: str) -> Document:
    """Read one YAML document. Bad YAML does not raise: its errors are in `errors`."""
    locations: dict[Key, Location] = {}
    errors: list[YamlError] = []
    try:
        # Nodes are composed only without aliases, which can stand for exponentially many nodes.
        has_tree = _check_events(text, errors)
        node = yaml.compose(text, Loader=yaml.SafeLoader) if has_tree else None
        value = _value(node, (), locations, errors) if node is not None else None
    except RecursionError:
        return Document(None, {}, [YamlError(Mark(1, 1), "nested too deeply to be a config")])
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return Document(None, {}, [YamlError(_mark(mark), f"not valid YAML: {error.problem or error.context}")])
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        return Document(None, {}, [YamlError(Mark(line, column), f"not valid YAML: {error.reason}")])
    return Document(value, locations, errors)


def _check_events(text: str, errors: list[YamlError]) -> bool:
    """Append the anchors, aliases, tags and further documents in `text` to `errors`.

    Returns whether the text is a single document without aliases.
    """
    num_documents, num_aliases = 0, 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        mark = _mark(event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            num_documents += 1
            if num_documents == 2:
                errors.append(YamlError(mark, "a second document; one file holds one config"))
        elif isinstance(event, yaml.AliasEvent):
            num_aliases += 1
            errors.append(YamlError(mark, f"alias *{event.anchor}: write the value out"))
        elif isinstance(event, yaml.NodeEvent):
            if event.anchor:
                errors.append(YamlError(mark, f"anchor &{event.anchor}: write the value out where it is needed"))
            tag = getattr(event, "tag", None)
            if tag not in (None, "!"):
                errors.append(YamlError(mark, f"tag {tag}: only plain values are read"))
    return num_documents <= 1 and num_aliases == 0


def _value(node: yaml.Node, path: Key, locations: dict[Key, Location], errors: list[YamlError]) -> Any:
    """The value of `node`; the positions of its keys go to `locations`, duplicate keys and the like to `errors`."""
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, locations, errors)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            locations[(*path, index)] = Location(_mark(item.start_mark), _mark(item.start_mark))
            items.append(_value(item, (*path, index), locations, errors))
        return items
    is_quoted = not isinstance(node, yaml.ScalarNode) or node.style is not None
    return str(node.value) if is_quoted else scalar(str(node.value))


def _mapping(
    node: yaml.MappingNode, path: Key, locations: dict[Key, Location], errors: list[YamlError]
) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        mark = _mark(key_node.start_mark)
        if not isinstance(key_node, yaml.ScalarNode):
            errors.append(YamlError(mark, "a key must be a single word"))
            continue
        key = (*path, str(key_node.value))
        if key[-1] in mapping:
            first = locations[key].key.line
            errors.append(YamlError(mark, f"{format_key(key)}: duplicate key, first on line {first}"))
            continue
        locations[key] = Location(mark, _mark(value_node.start_mark))
        mapping[str(key[-1])] = _value(value_node, key, locations, errors)
    return mapping


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
