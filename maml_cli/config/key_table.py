"""The reference of all config keys, generated from the schema, so that it cannot say anything else."""

from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from maml_cli.config.load import leaves, to_dict
from maml_cli.config.schema import MAX_SEEDS, Config
from maml_cli.config.validation_messages import format_value


def key_table_markdown() -> str:
    """A table for each section: key, default, what it takes, meaning."""
    defaults = {".".join(map(str, key)): value for key, value in leaves(to_dict(Config()))}
    return "\n".join(line for name in Config.model_fields for line in _section(name, _model(Config, name), defaults))


def _section(name: str, section: type[BaseModel], defaults: dict[str, Any]) -> list[str]:
    lines = [
        f"**`{name}`**: {_first_line(section)}",
        "",
        "| key | default | takes | meaning |",
        "|---|---|---|---|",
    ]
    lines += _rows(name, section, defaults)
    return [*lines, ""]


def _rows(path: str, section: type[BaseModel], defaults: dict[str, Any]) -> list[str]:
    rows = []
    for name, field in section.model_fields.items():
        key = f"{path}.{name}"
        if _is_section(field):
            rows += _rows(key, _model(section, name), defaults)
        else:
            rows.append(
                f"| `{key}` | `{format_value(defaults[key]).strip(chr(39))}` | {_takes(field)} | {field.description} |"
            )
    return rows


def _takes(field: FieldInfo) -> str:
    kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if kind is not None]
    choices = [choice for kind in kinds for choice in get_args(kind) if isinstance(choice, str)]
    choices += [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
    nullable = ", or null" if type(None) in get_args(field.annotation) else ""
    if choices:
        return ", ".join(dict.fromkeys(choices)) + nullable
    if field.annotation is bool:
        return "true, false"
    if field.annotation == tuple[float, float]:
        spans = field.description is not None and field.description.startswith("range")
        return "[low, high]" if spans else "number or [low, high]"
    if (field.description or "").startswith("independent runs"):
        return f"whole number from 1 to {MAX_SEEDS:,}, list of seeds, or null"
    if field.annotation is not None and "list" in str(field.annotation):
        return "list of up to 16 whole numbers from 1 to 8,192"
    number = "whole number" if int in kinds else "number"
    return f"{number}{_bounds(field)}{nullable}"


def _bounds(field: FieldInfo) -> str:
    names = {"gt": "above", "ge": "from", "lt": "below", "le": "to"}
    limits = [
        (word, getattr(limit, name)) for limit in field.metadata for name, word in names.items() if hasattr(limit, name)
    ]
    return "".join(f" {word} {value:,}" for word, value in limits if value < 2**62) + (
        " below 2^63" if any(value >= 2**62 for _, value in limits) else ""
    )


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _model(section: type[BaseModel], name: str) -> type[BaseModel]:
    annotation = section.model_fields[name].annotation
    assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation


def _first_line(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").partition("\n")[0]
