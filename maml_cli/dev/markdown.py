"""Markdown of the generated pages: tables, and numbers in their cells."""

import math
from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, a line for each of `rows`."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in lines)


def format_number(value: float) -> str:
    """Three significant digits; `overflow` where the value is not finite."""
    return f"{value:.3g}" if math.isfinite(value) else "overflow"


def yes_or_no(met: bool) -> str:
    """`yes`, or `no` in bold: whether a goal is met."""
    return "yes" if met else "**no**"
