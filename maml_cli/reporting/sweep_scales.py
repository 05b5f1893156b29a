"""Axes of the keys of a sweep: the position of each value, and the values that are labelled."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from maml_cli.reporting.canvas import label_text
from maml_cli.reporting.format import format_short
from maml_cli.reporting.sweep_tables import short_value, value_cell
from maml_cli.sweeps import TrialRow

MAX_TICKS = 7
MAX_LABEL = 28
"""Characters of a value or a key."""
LABEL_HEIGHT = 0.05
"""Height of a label, as a fraction of a vertical axis."""
LOG_SPREAD = 8.0
"""Ratio of the largest to the smallest positive value from which an axis is logarithmic."""


class Scale(NamedTuple):
    """The axis of a key.

    positions: the position of each value by its text.
    is_log: whether positions are the logarithms of numbers.
    is_numeric: whether the values are numbers, and not words or lists, which stand side by side.
    """

    positions: Mapping[str, float]
    is_log: bool = False
    is_numeric: bool = True

    @property
    def span(self) -> float:
        """The distance of the outermost positions; 1 for a single one."""
        return max(self.positions.values()) - min(self.positions.values()) or 1.0

    def fraction(self, at: float) -> float:
        """The position `at` from 0 to 1; in the middle of an axis of one value."""
        low, high = min(self.positions.values()), max(self.positions.values())
        return 0.5 if high == low else (at - low) / (high - low)

    def height(self, text: str) -> float:
        """The position of a value from 0 to 1."""
        return self.fraction(self.positions[text])

    def spread_ticks(self) -> dict[float, str]:
        """The ticks whose labels do not overlap on a vertical axis of the height of a figure."""
        ticks = self.ticks()
        chosen: list[float] = []
        for at in sorted(ticks):
            if not chosen or at - chosen[-1] >= LABEL_HEIGHT * self.span:
                chosen.append(at)
        return {at: ticks[at] for at in chosen}

    def ticks(self) -> dict[float, str]:
        """Positions that are labelled: every value, or round numbers among many."""
        if len(self.positions) <= MAX_TICKS or not self.is_numeric:
            return {at: label_text(short_value(text), MAX_LABEL) for text, at in self.positions.items()}
        low, high = min(self.positions.values()), max(self.positions.values())
        if self.is_log:
            factors = (1, 3) if high - low > 1.2 else (1, 2, 3, 5)
            decades = range(math.floor(low), math.ceil(high) + 1)
            numbers = [factor * 10.0**decade for decade in decades for factor in factors]
            return {math.log10(n): format_short(n) for n in numbers if low <= math.log10(n) <= high}
        power = 10.0 ** math.floor(math.log10((high - low) / 3))
        step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= MAX_TICKS - 2)
        multiples = range(math.ceil(low / step), math.floor(high / step) + 1)
        return {multiple * step: format_short(multiple * step) for multiple in multiples}


def scale_of(values: Mapping[str, object]) -> Scale:
    """The axis of a key from its values by text: positions of numbers are these or, widely spread, their logarithms."""
    numbers = [value for value in values.values() if type(value) in (int, float)]
    if len(numbers) < len(values):
        return Scale({text: float(index) for index, text in enumerate(values)}, is_numeric=False)
    floats = {text: float(str(value)) for text, value in values.items()}
    ordered = sorted(floats, key=lambda text: floats[text])
    low, high = floats[ordered[0]], floats[ordered[-1]]
    is_log = low > 0 and high >= LOG_SPREAD * low
    return Scale({text: math.log10(floats[text]) if is_log else floats[text] for text in ordered}, is_log)


def values_of(rows: Sequence[TrialRow], key: str) -> dict[str, object]:
    """The values of `key` by their text, in the order of their first trial."""
    by_number = sorted(rows, key=lambda row: row.number)
    return {value_cell(row, key): row.values[key] for row in by_number if key in row.values}
