"""The style of a figure: its size, fonts, title, labels and style sheet, as the options of a command give them.

This module does not import matplotlib, so that commands can list the style sheets on their help pages.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Sheet(NamedTuple):
    """A style sheet.

    settings: matplotlib's settings (rcParams) that differ from ours.
    width, height: of a figure, in inches; None for those of its kind.
    """

    settings: Mapping[str, Any] = {}
    width: float | None = None
    height: float | None = None


class FigureStyle(NamedTuple):
    """The look of one figure. None stands for the default of its kind throughout.

    width, height: in inches; of one alone, the other follows.
    font_size: of labels and legends, in points; titles follow.
    title: the text above the figure, empty for none.
    x_label, y_label: of the axes.
    sheet: the style sheet.
    """

    width: float | None = None
    height: float | None = None
    font_size: float | None = None
    title: str | None = None
    x_label: str | None = None
    y_label: str | None = None
    sheet: Sheet = Sheet()

    @property
    def figure_width(self) -> float | None:
        """The width that was asked for, by an option or by the style sheet."""
        return self.width or self.sheet.width

    @property
    def figure_height(self) -> float | None:
        """The height that was asked for; that of a style sheet belongs to its width."""
        return self.height or (None if self.width else self.sheet.height)


DEFAULT_STYLE = FigureStyle()

_SLIDES = {
    "font.size": 15.0,
    "lines.linewidth": 2.5,
    "lines.markersize": 8.5,
    "axes.linewidth": 1.2,
    "xtick.major.width": 1.2,
    "ytick.major.width": 1.2,
}
_DARK_COLOURS = ["#56B4E9", "#FF9D5C", "#3DD6A8", "#E8A5CC", "#F5C542", "#A7D8F5"]
_BACKGROUND, _FOREGROUND = "#16191D", "#F2F2F2"
_DARK = {
    name: _FOREGROUND for name in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
}

SHEETS = {
    "paper": Sheet({"font.size": 8.0, "lines.linewidth": 1.3, "lines.markersize": 5.0, "axes.linewidth": 0.7}, 3.4),
    "slides": Sheet(_SLIDES, 10.0, 5.6),
    "dark": Sheet(
        _SLIDES
        | _DARK
        | {name: _BACKGROUND for name in ("figure.facecolor", "axes.facecolor", "savefig.facecolor")}
        | {"axes.prop_cycle": f"cycler('color', {_DARK_COLOURS})"},
        10.0,
        5.6,
    ),
}
"""Name -> style sheet: a column of a paper, a slide, and a slide with a dark background."""
