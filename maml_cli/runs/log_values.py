"""Values in the lines of a log, checked as they are read: a number, one for each run, or one for each inner step.

Only lists of the right lengths are read at all, so that time and memory are in proportion to what is kept. Other values
raise ValueError, TypeError or OverflowError.
"""

import math
from typing import Any


def decode_values(value: Any, num_runs: int | None) -> list[float]:
    """A number, or one for each run; none is read unless their number is right."""
    values = value if isinstance(value, list) else [value]
    _check_length(values, num_runs)
    return [_decode_number(number) for number in values]


def decode_lists(value: Any, num_runs: int | None, length: int | None) -> list[list[float]]:
    """A list by inner step, or one for each run, null for a diverged run: one run at least has a list, since training
    ends when all have diverged. No number is read unless the number of runs and the lengths are right."""
    if not isinstance(value, list):
        raise ValueError("not a list")
    lists = [numbers for numbers in value if isinstance(numbers, list)] or [value]
    by_run = lists if lists[0] is value else value
    _check_length(by_run, num_runs)
    for numbers in lists:
        _check_length(numbers, length or len(lists[0]))
    diverged = [math.nan] * len(lists[0])
    return [diverged if numbers is None else [_decode_number(number) for number in numbers] for numbers in by_run]


def _decode_number(value: Any) -> float:
    """A finite number; null is NaN."""
    if value is None:
        return math.nan
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("not a finite number")
    return float(value)


def _check_length(values: list[Any], expected: int | None) -> None:
    """Raises ValueError unless there are `expected` values, at least one."""
    if not values or expected not in (None, len(values)):
        raise ValueError("another number of runs or of inner steps")
