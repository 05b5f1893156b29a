"""The fields of the schema by dotted key, and the values that each takes."""

from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args

from pydantic.fields import FieldInfo

from maml_cli.config.field_types import Takes
from maml_cli.config.formatting import format_number
from maml_cli.config.schema import Config
from maml_cli.config.section import Section
from maml_cli.config.tasks_schema import Component

_LIMITS = {"gt": "above", "ge": "from", "lt": "below", "le": "to"}


def section_model(field: FieldInfo) -> type[Section] | None:
    """The model of a field that is a section; None for a value."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _fields(section: type[Section], prefix: str = "") -> dict[str, FieldInfo]:
    result = {}
    for name, field in section.model_fields.items():
        result[f"{prefix}{name}"] = field
        model = section_model(field)
        result |= _fields(model, f"{prefix}{name}.") if model else {}
    return result


FIELDS: dict[str, FieldInfo] = _fields(Config)
"""Every section and every value by dotted key, sections before their values."""


DERIVED = ("tasks.data.measured", "run.init_sha256")
"""Keys whose values training writes into the config."""


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key in a config of nested dictionaries, also inside a value that is a mapping; None if
    there is none."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def changed_keys(config: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `config` that differ from those of `base`, by dotted key, without those that training writes."""
    keys = (key for key, field in FIELDS.items() if section_model(field) is None and key not in DERIVED)
    return {key: value for key in keys if (value := value_at(config, key)) != value_at(base, key)}


def names_in(section: str) -> list[str]:
    """The names of the fields directly in `section`; the sections themselves for `""`, and for an item of a list of
    sections, such as tasks.mixture[0], the names of its fields."""
    if section.endswith("]"):
        return [*Component.model_fields]
    return [key.rpartition(".")[2] for key in FIELDS if key.rpartition(".")[0] == section]


def is_whole_number(key: str) -> bool:
    """Whether the value at `key` is a whole number; False for a key that does not exist."""
    field = FIELDS.get(key)
    types = (field.annotation, *get_args(field.annotation)) if field else ()
    return int in types and float not in types


def is_number(field: FieldInfo) -> bool:
    """Whether a field takes numbers alone, or null."""
    return (set(get_args(field.annotation)) or {field.annotation}) <= {int, float, NoneType}


def choices(field: FieldInfo) -> list[str]:
    """The words that a field of Literal type, or of names, takes, with `null` last if it is optional; else none."""
    names = [name for mark in field.metadata if isinstance(mark, Takes) for name in mark.names]
    if names:
        return names
    annotations = (field.annotation, *get_args(field.annotation))
    words = [
        word for annotation in annotations for word in (annotation, *get_args(annotation)) if isinstance(word, str)
    ]
    return [*dict.fromkeys(words), *(["null"] if words and type(None) in annotations else [])]


def takes(field: FieldInfo) -> str:
    """The values that `field` takes, in words: its Takes mark, else its choices, or its type and bounds."""
    marks = [mark.text for mark in field.metadata if isinstance(mark, Takes)]
    if marks:
        return marks[0]
    if choices(field):
        return ", ".join(choices(field)).replace(", null", ", or null")
    types = (field.annotation, *get_args(field.annotation))
    if bool in types:
        return "true, false"
    limits = [
        f" {word} {format_number(getattr(limit, name))}"
        for limit in field.metadata
        for name, word in _LIMITS.items()
        if hasattr(limit, name)
    ]
    return "".join(["whole number" if int in types else "number", *limits, ", or null" if type(None) in types else ""])
