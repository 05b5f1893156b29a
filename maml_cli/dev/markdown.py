"""Markdown of the generated pages: tables, and numbers in their cells."""

from collections.abc import Iterable, Sequence

from maml_cli.reporting import format_short


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, a line for each of `rows`."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in lines)


def format_cell(value: float) -> str:
    """Three significant digits, or `overflow` if the value is not finite."""
    return format_short(value, overflow="overflow")


def yes_or_no(met: bool) -> str:
    """`yes`, or `no` in bold: whether a goal is met."""
    return "yes" if met else "**no**"
