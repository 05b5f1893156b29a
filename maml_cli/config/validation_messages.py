"""Messages for pydantic's errors: the key, the values it takes, the value given, and a hint."""

from typing import Any, Literal, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from maml_cli.config.constraint import Violation
from maml_cli.config.fields import FIELDS, choices, names_in
from maml_cli.config.formatting import Key, format_key, format_number, format_value
from maml_cli.config.suggestions import suggest_boolean, suggest_key, suggest_value

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
}


class Fault(NamedTuple):
    """A fault of a config.

    kind: `key` for an unknown key, `value` for an invalid value, `constraint` for a violated constraint.
    key: the key to blame.
    cause: pydantic's error, or the violated constraint.
    depends_on: the other keys that a violated constraint is about.
    """

    kind: Literal["key", "value", "constraint"]
    key: Key
    cause: ErrorDetails | Violation
    depends_on: tuple[Key, ...] = ()

    @property
    def message(self) -> str:
        """One line that names the key; formatted on demand, because hints take longer than the validation."""
        cause = self.cause
        return f"{cause.key} {cause.reason}" if isinstance(cause, Violation) else format_error(cause)


def faults(error: ValidationError) -> list[Fault]:
    """The faults in `error`: one for each violated constraint, where all values are valid, else one for each key."""
    result = []
    for item in error.errors(include_url=False):
        if item["type"] == "violations":
            result += [_constraint_fault(constraint) for constraint in item["ctx"]["violations"]]
        else:
            kind: Literal["key", "value"] = "key" if item["type"] == "extra_forbidden" else "value"
            result.append(Fault(kind, tuple(item["loc"]), item))
    return result


def _constraint_fault(constraint: Violation) -> Fault:
    key, *depends_on = (tuple(key.split(".")) for key in (constraint.key, *constraint.depends_on))
    return Fault("constraint", key, constraint, tuple(depends_on))


def format_error(item: ErrorDetails) -> str:
    """One line: the key, the values it takes, the value given, and a hint where its meaning can be guessed."""
    key, kind, value = tuple(item["loc"]), item["type"], item["input"]
    context: dict[str, Any] = item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{format_key(key)}: unknown key; {_key_hint(key)}"
    problem = item["msg"]
    hint: str | None = None
    if kind in _BOUNDS:
        bound, comparison = _BOUNDS[kind]
        problem = f"must be {comparison} {format_number(context[bound])}"
    elif kind in ("model_type", "dict_type"):
        names = names_in(format_key(key))
        problem = f"must be a section, with keys such as {names[0]}" if names else "must be a section, or null"
    elif kind in _TYPES:
        problem = f"must be {_TYPES[kind]}"
        hint = suggest_boolean(value) if kind == "bool_type" else _whole_number(value) if kind == "int_type" else None
    elif kind == "literal_error":
        words = choices(FIELDS[format_key(key)])
        problem = "must be " + " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
        hint = suggest_value(format_key(key), value, words)
    elif kind == "too_long":
        return f"{format_key(key)} must have at most {context['max_length']} items, has {context['actual_length']}"
    elif kind == "support":
        hint = _whole_number(value)
    elif kind not in ("range", "seeds"):
        return f"{format_key(key)}: {problem}, got {format_value(value)}"
    return f"{format_key(key)} {problem}, got {format_value(value)}" + (f"; did you mean {hint}?" if hint else "")


def _key_hint(key: Key) -> str:
    section = ".".join(map(str, key[:-1]))
    meant = suggest_key(format_key(key), list(FIELDS))
    return f"did you mean {meant}?" if meant else f"known here: {', '.join(names_in(section))}"


def _whole_number(value: Any) -> str | None:
    """The whole number that the float `value` equals, such as 1000 for 1e3."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else None
