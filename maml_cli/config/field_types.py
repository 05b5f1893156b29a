"""Field types of the schema that pydantic lacks: ranges, seeds and widths, each with the text of what it takes."""

import math
import re
from functools import partial
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError

from maml_cli.config.formatting import format_key, format_number
from maml_cli.config.suggestions import suggest_value
from maml_cli.errors import ConfigError
from maml_cli.formulas import (
    FAMILIES,
    WITHOUT_FORMULA,
    Distribution,
    as_distribution,
    family_names,
    find_family,
    to_plain,
)

MAX_SEEDS = 1024
MAX_STEPS = 99_999_999
MAX_LAYERS = 16
MAX_WIDTH = 8192
MAX_PATH = 4096
MAX_SUPPORT = 100_000
MAX_RADIANS = 1e6
"""Largest magnitude of inputs, frequencies and phases: in float64 the phase of a sinusoid, at most their product, then
has an error below 0.001 radians."""
MAX_TARGET = 1e30
"""Largest magnitude of targets: within the range of float32; and fourth powers, of which the variances of squared
errors consist, are within that of float64."""


class Takes(NamedTuple):
    """Marks a field type with the text that the key table shows under `takes`.

    text: the accepted values, such as `number or [low, high]`.
    names: the names among them that this package has; others may be added.
    """

    text: str
    names: tuple[str, ...] = ()


def _as_range(value: Any, *, most: float) -> tuple[float, ...]:
    """(low, high) from [low, high], or (x, x) from the number x, each at most `most` in magnitude."""
    numbers = value if isinstance(value, list | tuple) else [value, value]
    if len(numbers) != 2 or not all(_is_finite(number) for number in numbers):
        raise PydanticCustomError("range", "must be a number or [low, high]")
    if numbers[0] > numbers[1]:
        raise PydanticCustomError("range", "must have its low end first")
    if max(map(abs, numbers)) > most:
        raise PydanticCustomError("range", f"must be at most {format_number(most)} in magnitude")
    return tuple(float(number) for number in numbers)


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False


def _from_range(value: tuple[float, float]) -> float | list[float]:
    return value[0] if value[0] == value[1] else list(value)


def _as_support(value: Any) -> int | tuple[int, int]:
    """A number of support points K, or (low, high) from [low, high]; the number where both are equal."""
    ends = value if isinstance(value, list | tuple) else [value, value]
    if len(ends) != 2 or not all(type(end) is int and 1 <= end <= MAX_SUPPORT for end in ends):
        raise PydanticCustomError(
            "support", f"must be a whole number from 1 to {MAX_SUPPORT:,}, or [low, high] of two such numbers"
        )
    low, high = ends
    if low > high:
        raise PydanticCustomError("support", "must have its low end first")
    return low if low == high else (low, high)


def _as_step_size(value: Any) -> float | tuple[float, float]:
    """A step size above 0, or (low, high) from [low, high]; the number where both are equal."""
    ends = value if isinstance(value, list | tuple) else [value, value]
    if len(ends) != 2 or not all(_is_finite(end) for end in ends):
        raise PydanticCustomError("range", "must be a number or [low, high]")
    if min(ends) <= 0:
        raise PydanticCustomError("range", "must be greater than 0")
    if ends[0] > ends[1]:
        raise PydanticCustomError("range", "must have its low end first")
    low, high = map(float, ends)
    return low if low == high else (low, high)


def _as_seeds(value: Any) -> Any:
    """A number of runs, or a list of distinct seeds, unchanged; raises for anything else."""
    numbers = value if isinstance(value, list) else [value]
    if value is not None and not all(type(number) is int for number in numbers):
        raise PydanticCustomError("seeds", "must be a whole number, or a list of seeds")
    if isinstance(value, int) and not 1 <= value <= MAX_SEEDS:
        raise PydanticCustomError("seeds", f"must be from 1 to {MAX_SEEDS:,}, or a list of seeds")
    if isinstance(value, list) and not all(0 <= number < 2**63 for number in value):
        raise PydanticCustomError("seeds", "must have seeds from 0 to 2^63 - 1")
    if isinstance(value, list) and not 1 <= len(set(value)) == len(value) <= MAX_SEEDS:
        raise PydanticCustomError("seeds", f"must have from 1 to {MAX_SEEDS:,} seeds that differ")
    return value


def _as_source(value: Any) -> Any:
    """The text of a path, or None; it is not opened, as a config may come from anybody."""
    if value is not None and not (isinstance(value, str) and value.isprintable() and 0 < len(value) <= MAX_PATH):
        text = f"must be a path, of 1 to {MAX_PATH:,} characters that print, the name of a published run, or null"
        raise PydanticCustomError("range", "{text}", {"text": text})
    return value


def _as_sha256(value: Any) -> Any:
    if value is not None and not (isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)):
        raise PydanticCustomError("range", "must be a SHA-256, 64 hexadecimal digits in quotes, or null")
    return value


def _as_family(value: Any) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("range", "must be the name of a family, such as sine")
    if value in WITHOUT_FORMULA:
        return value
    try:
        find_family(value)
    except ConfigError as error:
        close = suggest_value("tasks.family", value, [*family_names(), *WITHOUT_FORMULA])
        hint = f"; did you mean {close}? Else a" if close else "; a"
        hint += " package that adds it is not installed"
        text = error.lines[0] + (hint if value not in family_names() else "")
        raise PydanticCustomError("range", "{text}", {"text": text}) from None
    return value


def _as_parameters(value: Any) -> dict[str, Distribution]:
    """Name -> distribution; the names are checked by a constraint, which knows the family."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise PydanticCustomError("range", "must be a section, such as {slope: [-3, 3]}")
    parameters = {}
    for name, written in value.items():
        try:
            parameters[name] = as_distribution(written)
        except ValueError as error:
            context = {"name": format_key((name,)), "text": str(error)}
            raise PydanticCustomError("range", "has {name}, which {text}", context) from None
    return parameters


def _from_parameters(value: dict[str, Distribution]) -> dict[str, Any]:
    return {name: to_plain(distribution) for name, distribution in value.items()}


def _within(most: float, written: Any = float | tuple[float, float]) -> BeforeValidator:
    """The validator of a range; `written` is its type in a config, for the JSON schema."""
    return BeforeValidator(partial(_as_range, most=most), json_schema_input_type=written)


def _range(text: str, most: float) -> Takes:
    return Takes(f"{text}, within +-{format_number(most)}")


_Plain = PlainSerializer(_from_range)
TargetRange = Annotated[tuple[float, float], _within(MAX_TARGET), _Plain, _range("number or [low, high]", MAX_TARGET)]
AngleRange = Annotated[tuple[float, float], _within(MAX_RADIANS), _Plain, _range("number or [low, high]", MAX_RADIANS)]
InputRange = Annotated[
    tuple[float, float],
    _within(MAX_RADIANS, written=tuple[float, float]),
    _Plain,
    _range("[low, high]", MAX_RADIANS),
]
FamilyName = Annotated[
    str,
    BeforeValidator(_as_family),
    Takes(
        f"{', '.join([*FAMILIES, *WITHOUT_FORMULA])}, or the name of one that was added", (*FAMILIES, *WITHOUT_FORMULA)
    ),
]
FilePath = Annotated[str, Field(min_length=1, max_length=4096), Takes("path of a file, or null")]
Parameters = Annotated[
    dict[str, Any],
    BeforeValidator(_as_parameters),
    PlainSerializer(_from_parameters),
    Takes("section: name: number, [low, high], or {normal: [mean, std]}"),
]
SupportSize = Annotated[
    int | tuple[int, int],
    BeforeValidator(_as_support),
    Takes(f"whole number from 1 to {MAX_SUPPORT:,}, or [low, high]"),
]
_Positive = Annotated[float, Field(gt=0)]
StepSize = Annotated[
    float | tuple[float, float],
    BeforeValidator(_as_step_size, json_schema_input_type=_Positive | tuple[_Positive, _Positive]),
    Takes("number above 0, or [low, high]"),
]
Seeds = Annotated[
    int | list[int] | None,
    BeforeValidator(_as_seeds),
    Takes(f"whole number from 1 to {MAX_SEEDS:,}, list of seeds, or null"),
]
SourcePath = Annotated[
    str | None, BeforeValidator(_as_source), Takes("path of a run or checkpoint, name of a published run, or null")
]
Sha256 = Annotated[str | None, BeforeValidator(_as_sha256), Takes("64 hexadecimal digits, or null")]
PositiveSteps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
StepsOrZero = Annotated[int, Field(ge=0, le=MAX_STEPS)]
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Widths = Annotated[
    list[Width],
    Field(max_length=MAX_LAYERS),
    Takes(f"list of up to {MAX_LAYERS} whole numbers from 1 to {MAX_WIDTH:,}"),
]
