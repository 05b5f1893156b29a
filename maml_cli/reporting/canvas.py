"""matplotlib with fixed settings: a figure has the same bytes in every environment and with every user's files.

Only this module imports matplotlib; figures are `Figure` objects that are saved to files, without pyplot and without
a window. Colours are Okabe and Ito's palette for colour-blind readers, and lines differ in dash and marker as well.
"""

import contextlib
import io
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from maml_cli.errors import FileError, printable
from maml_cli.runs import write_atomic


@contextlib.contextmanager
def _without_user_settings() -> Iterator[None]:
    """Import matplotlib without MPLBACKEND and MATPLOTLIBRC, and without warnings about its cache directory.

    matplotlib reads both at import and fails on a backend that is not installed, such as the one that notebooks
    export to their child processes.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with mock.patch.dict(os.environ):
            for name in ("MPLBACKEND", "MATPLOTLIBRC"):
                os.environ.pop(name, None)
            yield
    except UnicodeDecodeError:
        raise FileError("matplotlibrc: not a text file; remove it from this directory or from ~/.config") from None
    finally:
        logger.setLevel(level)


with _without_user_settings():
    import matplotlib
    import matplotlib.font_manager
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from maml_cli.reporting.format import format_short  # noqa: E402  after the guarded import

__all__ = [
    "BLACK",
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PALE_GREY",
    "PURPLE",
    "Axes",
    "Figure",
    "NullLocator",
    "drawable",
    "integer_axis",
    "label_text",
    "legend_below",
    "line_styles",
    "log_axis",
    "new_figure",
    "save_figure",
]

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
YELLOW, SKY, BLACK, GREY, PALE_GREY = "#E69F00", "#56B4E9", "#000000", "#767676", "#C8C8C8"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, BLACK, YELLOW, SKY)
DASHES = ("-", "--", "-.", ":")
MARKERS = "os^Dv<>P"
CHARACTERS_PER_INCH, HANDLE = 13, 6
"""Of a legend: average characters of its font, and the width of a handle with its padding in characters."""
SMALLEST, LARGEST = 1e-100, 1e100
"""Magnitudes that are drawn: with a wider range the limits of an axis, and the products of transforms, overflow."""
MARGIN = 0.05
"""Free space at the end of an axis, as a fraction of its length."""
LOG_LIMITS = (1e-290, 1e290)
"""Limits of a logarithmic axis: beyond, matplotlib's own margins and ticks overflow or underflow in float64."""
ROUNDING = 1e-9
"""Relative difference of values that are the same but for rounding; the axis around them is a factor of four long."""

# No date inside, so that the same figure has the same bytes.
METADATA: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}

STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "figure.titlesize": 10.0,
    "legend.frameon": False,
    "svg.hashsalt": "maml",
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a name with $ is no formula
}


def save_figure(draw: Callable[[], Figure], file: Path) -> Path:
    """Draw a figure in our style and write it to `file`; its suffix chooses the format."""
    with matplotlib.rc_context(), mock.patch.dict(os.environ):
        os.environ.pop("SOURCE_DATE_EPOCH", None)  # matplotlib parses it even for figures without a date
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        buffer, suffix = io.BytesIO(), file.suffix.lower()
        draw().savefig(buffer, format=suffix[1:], dpi=165, metadata=METADATA[suffix])
    write_atomic(file, buffer.getvalue())
    return file


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, whose layout leaves room for titles, labels and legends."""
    return Figure(figsize=(width, height), layout="constrained")


def label_text(text: str, length: int) -> str:
    """`text` from outside as a title or a label of at most `length` characters, cut at its beginning.

    What does not print, and what the font lacks, is written as escapes, so that a figure needs no other font. Labels
    that begin with an underscore have no entry in a legend: a space in front keeps theirs.
    """
    characters = matplotlib.font_manager.get_font(matplotlib.font_manager.findfont("DejaVu Sans")).get_charmap()
    plain = "".join(
        character if ord(character) in characters else character.encode("unicode_escape").decode("ascii")
        for character in printable(text)
    )
    shown = plain if len(plain) <= length else f"…{plain[1 - length :]}"
    return f" {shown}" if shown.startswith("_") else shown


def drawable(value: float) -> float:
    """The number to draw for `value`: NaN, a gap in a line, if it overflowed or exceeds 1e100; 0 below 1e-100.

    >>> [drawable(value) for value in (0.5, -1e-320, 1e308)]
    [0.5, 0.0, nan]
    """
    if not abs(value) <= LARGEST:
        return math.nan
    return float(value) if abs(value) >= SMALLEST else 0.0


def line_styles() -> Iterator[dict[str, Any]]:
    """Colour, dash and marker of each line in turn, in an endless cycle; the first 28 differ in colour or dash."""
    colours = itertools.cycle(itertools.product(DASHES, COLOURS))
    for (dash, colour), marker in zip(colours, itertools.cycle(MARKERS), strict=False):
        yield {"ls": dash, "color": colour, "marker": marker}


def legend_below(figure: Figure, axis: Axes, *, columns: int = 2) -> None:
    """One legend for the figure, below its axes, where it covers no line; the entries are those of `axis`.

    It has at most `columns`, fewer where they are wider than the figure; longer labels are cut at their beginning.
    """
    handles, labels = axis.get_legend_handles_labels()
    width = int(CHARACTERS_PER_INCH * figure.get_figwidth())
    labels = [label if len(label) <= width - HANDLE else f"…{label[HANDLE + 1 - width :]}" for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=_columns_that_fit(labels, columns, width))


def _columns_that_fit(labels: Sequence[str], most: int, width: int) -> int:
    """The largest number of columns, filled one after another, whose labels and handles fit into `width` characters."""
    for columns in range(min(most, len(labels)), 1, -1):
        rows = math.ceil(len(labels) / columns)
        longest = [max(map(len, labels[start : start + rows])) for start in range(0, len(labels), rows)]
        if sum(longest) + HANDLE * len(longest) <= width:
            return columns
    return 1


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
    subs: Sequence[float] = (1, 2, 3, 5) if decades < 1.5 else (1, 2, 5) if decades < 3 else (1, 3)
    if decades >= 5:
        subs = (1,)
    base = 10.0 ** max(1, math.ceil(decades / 8))
    axis.yaxis.set_major_locator(LogLocator(base=base, subs=subs, numticks=100))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_short(value)))
    axis.yaxis.set_minor_formatter(NullFormatter())
