"""What is wrong with a value of a config, in the user's words."""

import difflib
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from maml_cli.config.schema import Config

Key = tuple[str | int, ...]

_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list, such as [40, 40]",
    "model_type": "a section with keys of its own",
    "dict_type": "a section with keys of its own",
}


def error_key(item: ErrorDetails) -> Key:
    """The key that an error is about."""
    return tuple(item["loc"])


def format_error(item: ErrorDetails) -> str:
    """One line: the key, what would be right, and what was found."""
    key, kind, found = error_key(item), item["type"], format_value(item["input"])
    context: dict[str, Any] = item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{format_key(key)}: unknown key; {_suggestion(key)}"
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"{format_key(key)} must be {words} {_limit(context[bound])}, got {found}"
    if kind in _TYPES:
        return f"{format_key(key)} must be {_TYPES[kind]}, got {found}"
    if kind == "literal_error":
        choices = context["expected"].replace("'", "")
        close = difflib.get_close_matches(str(item["input"]), choices.replace(" or ", ", ").split(", "), 1)
        return f"{format_key(key)} must be {choices}, got {found}" + (f"; did you mean {close[0]}?" if close else "")
    if kind == "too_long":
        return f"{format_key(key)} must have at most {context['max_length']} items, has {context['actual_length']}"
    if kind in ("range", "seeds"):
        return f"{format_key(key)} {item['msg']}, got {found}"
    return f"{format_key(key)}: {item['msg']}, got {found}"


def _limit(value: float) -> str:
    return "2^63" if value == 2**63 else f"{value:,}" if isinstance(value, int) else f"{value:g}"


def format_key(key: Key) -> str:
    """A key as it is written in overrides and messages: `model.hidden[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix(".")


def format_value(value: Any) -> str:
    """A value as one would write it in YAML, cut to a readable length."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _suggestion(key: Key) -> str:
    section: type[BaseModel] = Config
    for part in key[:-1]:
        section = _section(section, str(part))
    close = difflib.get_close_matches(str(key[-1]), section.model_fields, 1, cutoff=0.5)
    elsewhere = [path for path in _all_keys(Config) if path[-1] == key[-1]]
    if close:
        return f"did you mean {format_key((*key[:-1], close[0]))}?"
    if elsewhere:
        return f"did you mean {format_key(elsewhere[0])}?"
    return f"known here: {', '.join(section.model_fields)}"


def _section(parent: type[BaseModel], name: str) -> type[BaseModel]:
    annotation = parent.model_fields[name].annotation
    return next(
        kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel)
    )


def _all_keys(section: type[BaseModel], path: Key = ()) -> list[Key]:
    keys: list[Key] = []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _all_keys(field.annotation, (*path, name))
        else:
            keys.append((*path, name))
    return keys
