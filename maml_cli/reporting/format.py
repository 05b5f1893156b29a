"""Numbers, intervals, counts and seeds as text, also those that are not finite.

A number in a table is at most nine columns wide, so that a row of errors fits into 80 columns.
"""

import json
import math
from typing import Any

FIXED_FORMATS = ((10, 4), (100, 3), (1000, 2))
"""Upper bound of a magnitude, and the decimals of the numbers below it."""
SMALLEST_FIXED = 1e-4


def format_number(value: float) -> str:
    """A number of a table: fixed-point from 0.0001 to 999.99, else two digits and an exponent; inf for an overflow.

    >>> [format_number(value) for value in (0.36612, 42.0, -123456.0, 3.2e-7, float("nan"))]
    ['0.3661', '42.000', '-1.2e5', '3.2e-7', 'inf']
    """
    if not math.isfinite(value):
        return "-inf" if value == -math.inf else "inf"
    scientific = f"{value:.1e}"
    if value == 0 or abs(float(scientific)) >= SMALLEST_FIXED:
        for bound, decimals in FIXED_FORMATS:
            text = f"{value:.{decimals}f}"
            if abs(float(text)) < bound:
                return text
    return _without_padding(scientific)


def format_interval(mean: float, half_width: float) -> str:
    """`mean ± half_width`; the mean alone where it is a rounding error or the interval is not finite."""
    if not math.isfinite(half_width) or abs(mean) < 1e-9:
        return format_number(mean)
    return f"{format_number(mean)} ± {format_number(half_width)}"


def format_short(value: float, *, overflow: str = "inf") -> str:
    """A number of three significant digits, for labels and running text; `overflow` if it is not finite.

    >>> format_short(0.36612), format_short(7e-31), format_short(float("inf"), overflow="overflow")
    ('0.366', '7e-31', 'overflow')
    """
    return _without_padding(f"{value:.3g}") if math.isfinite(value) else overflow


def plural(count: int, noun: str) -> str:
    """A count and its noun.

    >>> plural(1, "inner step"), plural(10000, "test task")
    ('1 inner step', '10,000 test tasks')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def list_in_words(words: list[str], *, last: str = "or") -> str:
    """Alternatives in a sentence.

    >>> list_in_words(["png", "svg", "pdf"])
    'png, svg or pdf'
    """
    return f" {last} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def format_plain(value: Any, *, digits: int | None = None) -> str:
    """A plain value of a config as `--set` takes it; numbers of so many significant digits, or exact ones for None.

    >>> format_plain([0.0, 3.14159265], digits=4), format_plain("relu"), format_plain(None)
    ('[0.0,3.142]', 'relu', 'null')
    """
    return value if isinstance(value, str) else json.dumps(_rounded(value, digits), separators=(",", ":"))


def _rounded(value: Any, digits: int | None) -> Any:
    if isinstance(value, list):
        return [_rounded(item, digits) for item in value]
    if digits is not None and isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{digits}g}")
    return value


def _without_padding(text: str) -> str:
    """`1.2e5` in place of `1.2e+05`: two columns fewer in a table."""
    digits, separator, exponent = text.partition("e")
    return f"{digits}e{int(exponent)}" if separator else text
