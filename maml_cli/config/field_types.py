"""Field types of the schema that pydantic lacks: ranges, seeds and widths, each with the text of what it takes."""

import math
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError

MAX_SEEDS = 1024
MAX_STEPS = 99_999_999
MAX_LAYERS = 16
MAX_WIDTH = 8192


class Takes(NamedTuple):
    """Marks a field type with the text that the key table shows under `takes`.

    text: the accepted values, such as `number or [low, high]`.
    """

    text: str


def _as_range(value: Any) -> tuple[float, ...]:
    """(low, high) from [low, high], or (x, x) from the number x."""
    numbers = value if isinstance(value, list | tuple) else [value, value]
    if len(numbers) != 2 or not all(_is_finite(number) for number in numbers):
        raise PydanticCustomError("range", "must be a number or [low, high]")
    if numbers[0] > numbers[1]:
        raise PydanticCustomError("range", "must have its low end first")
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


_AnyRange = Annotated[tuple[float, float], BeforeValidator(_as_range), PlainSerializer(_from_range)]
NumberOrRange = Annotated[_AnyRange, Takes("number or [low, high]")]
Range = Annotated[_AnyRange, Takes("[low, high]")]
Seeds = Annotated[
    int | list[int] | None,
    BeforeValidator(_as_seeds),
    Takes(f"whole number from 1 to {MAX_SEEDS:,}, list of seeds, or null"),
]
PositiveSteps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
StepsOrZero = Annotated[int, Field(ge=0, le=MAX_STEPS)]
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Widths = Annotated[
    list[Width],
    Field(max_length=MAX_LAYERS),
    Takes(f"list of up to {MAX_LAYERS} whole numbers from 1 to {MAX_WIDTH:,}"),
]
