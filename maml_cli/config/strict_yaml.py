"""YAML read strictly: plain values, each with the line and column it came from, and every fault reported.

Scalars follow YAML 1.2, so `1e-3` is a number while `on`, `1:30` and `017` are text; duplicate keys, anchors,
aliases and tags are faults (PyYAML by itself reads YAML 1.1 and keeps the last of two equal keys).
"""

import math
import re
from typing import Any, NamedTuple

import yaml

KeyPath = tuple[str | int, ...]

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
    """A place in a file, both counted from 1."""

    line: int
    column: int


class Location(NamedTuple):
    """Where a key stands and where its value begins; for the item of a list, the same."""

    key: Mark
    value: Mark


class YamlError(NamedTuple):
    """Something wrong at a place in a file."""

    mark: Mark
    message: str


class Document(NamedTuple):
    """The value of a YAML text, the places of its keys and items, and what is wrong with it."""

    value: Any
    locations: dict[KeyPath, Location]
    errors: list[YamlError]


def parse(text: str) -> Document:
    """Read one YAML document. Never raises on bad YAML: what is wrong is in `faults`."""
    places: dict[KeyPath, Location] = {}
    faults: list[YamlError] = []
    try:
        # A tree of aliases can be exponentially large, so that a text that has any is not looked into.
        safe = _check_events(text, faults)
        node = yaml.compose(text, Loader=yaml.SafeLoader) if safe else None
        value = _value(node, (), places, faults) if node is not None else None
    except RecursionError:
        return Document(None, {}, [YamlError(Mark(1, 1), "nested too deeply to be a config")])
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return Document(None, {}, [YamlError(_at(mark), f"not valid YAML: {error.problem or error.context}")])
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        return Document(None, {}, [YamlError(Mark(line, column), f"not valid YAML: {error.reason}")])
    return Document(value, places, faults)


def _check_events(text: str, faults: list[YamlError]) -> bool:
    """Note what is not plain YAML; whether the text is one document without aliases."""
    documents, safe = 0, True
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = _at(event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents == 2:
                faults.append(YamlError(place, "a second document; one file holds one config"))
                safe = False
        elif isinstance(event, yaml.AliasEvent):
            faults.append(YamlError(place, f"alias *{event.anchor}: write the value out"))
            safe = False
        elif isinstance(event, yaml.NodeEvent):
            if event.anchor:
                faults.append(YamlError(place, f"anchor &{event.anchor}: write the value out where it is needed"))
            tag = getattr(event, "tag", None)
            if tag not in (None, "!"):
                faults.append(YamlError(place, f"tag {tag}: only plain values are read"))
    return safe


def _value(node: yaml.Node, path: KeyPath, places: dict[KeyPath, Location], faults: list[YamlError]) -> Any:
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            mark = _mark(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                faults.append(YamlError(mark, "a key must be a single word"))
                continue
            key = str(key_node.value)
            if key in mapping:
                first = places[(*path, key)].key.line
                faults.append(
                    YamlError(mark, f"{'.'.join(map(str, (*path, key)))}: duplicate key, first on line {first}")
                )
                continue
            places[(*path, key)] = Location(mark, _mark(value_node))
            mapping[key] = _value(value_node, (*path, key), places, faults)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            places[(*path, index)] = Location(_mark(item), _mark(item))
            items.append(_value(item, (*path, index), places, faults))
        return items
    quoted = not isinstance(node, yaml.ScalarNode) or node.style is not None
    return str(node.value) if quoted else scalar(str(node.value))


def scalar(text: str) -> Any:
    """The value of an unquoted word: null, a truth value, a number, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text) if len(text) <= 100 else float(text)
    if _FLOAT.fullmatch(text) and any(character.isdigit() for character in re.split("[eE]", text)[0]):
        return float(text)
    return text


def _mark(node: yaml.Node) -> Mark:
    return _at(node.start_mark)


def _at(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1) if mark else Mark(1, 1)
