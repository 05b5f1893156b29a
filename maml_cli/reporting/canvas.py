"""The canvas: figures of fixed settings, which have the same bytes in every environment, and their style.

Figures are `Figure` objects that are saved to files, without pyplot and without a window. Colours are Okabe and Ito's
palette for colour-blind readers, and lines differ in dash or marker as well.
"""

import contextlib
import io
import itertools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from maml_cli.errors import printable
from maml_cli.reporting.figure_layout import fit_to_style
from maml_cli.reporting.figure_style import DEFAULT_STYLE, FigureStyle
from maml_cli.reporting.figure_text import fit_legend
from maml_cli.reporting.matplotlib_import import (
    Axes,
    Figure,
    FigureCanvasAgg,
    get_named_colors_mapping,
    matplotlib,
    to_rgb,
)
from maml_cli.runs import write_atomic

__all__ = [
    "BACKGROUND",
    "BLACK",
    "BLUE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PALE_GREY",
    "PURPLE",
    "SKY",
    "STYLE",
    "YELLOW",
    "Axes",
    "Figure",
    "drawable",
    "figure_pixels",
    "figure_settings",
    "font_size",
    "label_text",
    "legend_below",
    "line_styles",
    "new_figure",
    "ordered_colour",
    "save_figure",
]

BLUE, ORANGE, GREEN, PURPLE = "maml:blue", "maml:orange", "maml:green", "maml:purple"
YELLOW, SKY, BLACK, GREY, PALE_GREY = "maml:yellow", "maml:sky", "maml:black", "maml:grey", "maml:pale grey"
BACKGROUND = "maml:background"
"""Names of colours, which matplotlib resolves as it draws: a style sheet gives them other values."""
OKABE_ITO = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, BLACK, YELLOW, SKY)
GREYS = {BLACK: 0.0, GREY: 118 / 255, PALE_GREY: 200 / 255, BACKGROUND: 1.0}
"""Share of the background in a grey."""
DASHES = ("-", "--", "-.", ":")
MARKERS = "os^Dv<>P"
SMALLEST, LARGEST = 1e-100, 1e100
"""Magnitudes that are drawn: with a wider range the limits of an axis, and the products of transforms, overflow."""

# No date inside, so that the same figure has the same bytes.
METADATA: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}

STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "axes.prop_cycle": f"cycler('color', {OKABE_ITO})",
    "legend.frameon": False,
    "svg.hashsalt": "maml",
    "svg.fonttype": "none",  # text, which can be searched and edited
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a name with $ is no formula
}
TITLE = 10 / 9
"""Size of the title of several panels, as a multiple of that of labels."""
FONT = "DejaVu Sans"
"""The font that comes with matplotlib, for characters that another lacks."""


@contextlib.contextmanager
def figure_settings(style: FigureStyle) -> Iterator[None]:
    """The settings in which figures are drawn and saved: ours, the style sheet's, then the font size of `style`."""
    with matplotlib.rc_context(), mock.patch.dict(os.environ):
        os.environ.pop("SOURCE_DATE_EPOCH", None)  # matplotlib parses it even for figures without a date
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | dict(style.sheet.settings))
        settings = matplotlib.rcParams
        if style.font_size:
            settings["font.size"] = style.font_size
        if "figure.titlesize" not in style.sheet.settings:
            settings["figure.titlesize"] = TITLE * settings["font.size"]
        if FONT not in settings["font.family"] and settings["font.family"] != ["sans-serif"]:
            settings["font.family"] = [*settings["font.family"], FONT]
        _name_colours()
        try:
            yield
        finally:
            matplotlib.rcdefaults()
            settings.update(STYLE)
            _name_colours()


def _name_colours() -> None:
    """Give the names of colours their values by the settings in force; greys lie between text and background."""
    settings, colours = matplotlib.rcParams, get_named_colors_mapping()
    cycle = itertools.cycle(settings["axes.prop_cycle"].by_key().get("color", OKABE_ITO))
    for name, colour in zip((BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY), cycle, strict=False):
        colours[name] = to_rgb(colour)
    text, background = to_rgb(settings["text.color"]), to_rgb(settings["axes.facecolor"])
    for name, share in GREYS.items():
        colours[name] = tuple((1 - share) * a + share * b for a, b in zip(text, background, strict=True))


with figure_settings(DEFAULT_STYLE):  # so that the names have values outside of save_figure as well
    pass


def save_figure(draw: Callable[[], Figure], file: Path, style: FigureStyle = DEFAULT_STYLE) -> Path:
    """Draw a figure in `style` and write it to `file`; its suffix chooses the format.

    Raises ConfigError if the figure is too small for its text.
    """
    with figure_settings(style):
        buffer, suffix = io.BytesIO(), file.suffix.lower()
        figure = draw()
        fit_to_style(figure, style)
        figure.savefig(buffer, format=suffix[1:], dpi=165, metadata=METADATA[suffix])
    write_atomic(file, buffer.getvalue())
    return file


def figure_pixels(draw: Callable[[], Figure], *, dpi: int) -> memoryview:
    """Draw a figure, and return its pixels in red, green, blue and opacity from 0 to 255, (height, width, 4)."""
    with figure_settings(DEFAULT_STYLE):
        canvas = FigureCanvasAgg(draw())
        canvas.figure.set_dpi(dpi)
        canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib has no types here
    return memoryview(canvas.buffer_rgba())  # type: ignore[no-untyped-call]


def new_figure(width: float, height: float, style: FigureStyle = DEFAULT_STYLE) -> Figure:
    """An empty figure, in inches, whose layout leaves room for titles, labels and legends.

    Width and height are those of its kind, which `style` may replace; of one alone, the other keeps the proportion.
    """
    ratio = height / width
    if style.figure_width:
        width, height = style.figure_width, ratio * style.figure_width
    if style.figure_height:
        width, height = style.figure_width or style.figure_height / ratio, style.figure_height
    return Figure(figsize=(width, height), layout="constrained")


def font_size(factor: float = 1.0) -> float:
    """A multiple of the font size in force, in points."""
    return factor * float(matplotlib.rcParams["font.size"])


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


def ordered_colour(share: float) -> Any:
    """The colour at `share`, from 0 to 1, of the ordered scale of the settings, without its end near the background."""
    is_dark = sum(to_rgb(BACKGROUND)) < 1.5
    colours = matplotlib.colormaps[matplotlib.rcParams["image.cmap"]]
    return colours(0.15 + 0.85 * share if is_dark else 0.85 * share)


def legend_below(figure: Figure, *panels: Axes, columns: int = 2) -> None:
    """One legend for the figure, below its axes, where it covers no line; the entries are those of `panels`.

    It has at most `columns`, fewer where they are wider than the figure; longer labels are wrapped.
    """
    entries: dict[str, Any] = {}
    for axis in panels:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    labels, columns = fit_legend([*entries], figure.get_figwidth(), columns)
    figure.legend(entries.values(), labels, loc="outside lower center", ncols=columns)
