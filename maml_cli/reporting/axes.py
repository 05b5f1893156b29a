"""Axes: whole numbers, log scales over any number of decades, shares in percent, and colours with their scale."""

import math
from collections.abc import Sequence
from typing import Any

from maml_cli.reporting.format import format_short
from maml_cli.reporting.matplotlib_import import (
    Axes,
    Figure,
    FuncFormatter,
    LogLocator,
    LogNorm,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

MARGIN = 0.05
"""Free space at the end of an axis, as a fraction of its length."""
LOG_LIMITS = (1e-290, 1e290)
"""Limits of a logarithmic axis: beyond, matplotlib's own margins and ticks overflow or underflow in float64."""
ROUNDING = 1e-9
"""Relative difference of values that are the same but for rounding; the axis around them is a factor of four long."""


def integer_axis(axis: Axes, *, most_ticks: int = 7) -> None:
    """Whole numbers along x with thousands separators, few enough that neighbours do not overlap."""
    axis.xaxis.set_major_locator(MaxNLocator(nbins=most_ticks - 1, integer=True))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def log_axis(axis: Axes, *, top: float = math.inf) -> None:
    """A logarithmic y axis over all positive values up to `top`, with two to ten labelled ticks over any decades.

    Values beyond LOG_LIMITS leave it; without a positive value it stays linear.
    """
    if not 0 < axis.dataLim.y1 < math.inf:
        return
    least, greatest = (min(max(y, LOG_LIMITS[0]), LOG_LIMITS[1]) for y in (axis.dataLim.minposy, axis.dataLim.y1))
    is_scaled = (least, greatest) == (axis.dataLim.minposy, axis.dataLim.y1) and greatest > least * (1 + ROUNDING)
    axis.set_autoscaley_on(is_scaled)
    axis.set_yscale("log")
    if not is_scaled:
        axis.set_ylim(least / 2, greatest * 2)
    if math.isfinite(top) and least < top < axis.get_ylim()[1]:
        # Without this, values above `top` would widen the margin below the least value.
        axis.set_ylim(least * (least / top) ** MARGIN, top)
    low, high = axis.get_ylim()
    decades = math.log10(high) - math.log10(low)
    base = 10.0 ** max(1, math.ceil(decades / 8))
    axis.yaxis.set_major_locator(LogLocator(base=base, subs=_subs(decades), numticks=100))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_short(value)))
    axis.yaxis.set_minor_formatter(NullFormatter())


def log_x_axis(axis: Axes, least: float) -> None:
    """A logarithmic x axis over the positive values from `least`, with few labelled ticks; linear without one."""
    greatest = axis.dataLim.x1
    if not 0 < least <= greatest < math.inf:
        return
    axis.set_xscale("log")
    axis.set_xlim(max(least, LOG_LIMITS[0]) / 1.3, min(greatest, LOG_LIMITS[1]) * 1.3)
    decades = math.log10(greatest) - math.log10(least)
    axis.xaxis.set_major_locator(
        LogLocator(base=10.0 ** max(1, math.ceil(decades / 6)), subs=_subs(decades), numticks=100)
    )
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_short(value)))
    axis.xaxis.set_minor_formatter(NullFormatter())


def percent_axis(axis: Axes, least: float) -> None:
    """A logarithmic y axis of shares from `least` to 1, in percent."""
    axis.set_yscale("log")
    axis.set_ylim(least / 1.3, 1.3)
    axis.yaxis.set_major_locator(LogLocator(numticks=100))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{format_short(100 * value)} %"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def colour_cells(
    figure: Figure,
    axis: Axes,
    edges: Sequence[Sequence[float]],
    values: Any,
    *,
    limits: tuple[float, float],
    label: str,
) -> None:
    """Cells of a grid, coloured by `values` (rows by y) on a log scale from the first to the second of `limits`, with a
    colour bar. `edges` are those of x and of y; a cell whose value is NaN has no colour."""
    least, greatest = limits
    greatest = greatest if greatest > least * (1 + ROUNDING) else 2 * least
    norm = LogNorm(least, greatest)
    cells = axis.pcolormesh(*edges, values, norm=norm, edgecolors="face", lw=0.1)  # no seams between cells
    bar = figure.colorbar(cells, ax=axis, label=label, aspect=30)
    decades = math.log10(greatest / least)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=_subs(decades), numticks=100))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_short(value)))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.outline.set_visible(False)


def _subs(decades: float) -> Sequence[float]:
    """Multiples of a power of ten that have a tick, for an axis of so many decades."""
    subs: Sequence[float] = (1, 2, 3, 5) if decades < 1.5 else (1, 2, 5) if decades < 3 else (1, 3)
    return (1,) if decades >= 5 else subs
