"""The layout of figures: text measured and wrapped, legends in columns that fit, and sizes that a style asks for."""

import math
import warnings
from collections.abc import Sequence

from maml_cli.errors import ConfigError
from maml_cli.reporting.figure_style import FigureStyle
from maml_cli.reporting.matplotlib_import import (
    Axes,
    Figure,
    FontProperties,
    Text,
    matplotlib,
    text_to_path,
)

POINTS = 72.0
"""Points of an inch."""
COLOUR_BAR = "<colorbar>"
"""The label that matplotlib gives to the axes of a colour bar."""
LEAST_ASPECT = 0.62
"""Height of a panel over its width, where the width of a figure is given and its height follows."""
PANEL_EM = 14.5
"""Least width of a panel, with its labels, as a multiple of the font size."""
LEAST_PANEL = 0.35
"""Least width and height of a panel, in inches."""
LINE_WIDTH, MARKER_SIZE = 1.5, 6.0
"""matplotlib's defaults of lines.linewidth and lines.markersize, for which line widths of figures are chosen."""


def text_width(text: str, font: FontProperties) -> float:
    """The width of one line of `text`, in inches."""
    width: float = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    return width / POINTS


def fit_legend(labels: Sequence[str], width: float, most: int) -> tuple[list[str], int]:
    """Labels that fit into a figure of `width` inches, cut at their beginning, and the largest number of columns,
    at most `most`, that fits; columns are filled one after another."""
    settings = matplotlib.rcParams
    font = FontProperties(size=settings["legend.fontsize"])
    em = font.get_size_in_points() / POINTS
    handle = em * (settings["legend.handlelength"] + settings["legend.handletextpad"])
    gap = em * settings["legend.columnspacing"]
    width -= 2 * em * (settings["legend.borderpad"] + settings["legend.borderaxespad"])
    labels = [_cut(label, width - handle, font) for label in labels]
    widths = [text_width(label, font) + handle for label in labels]
    for columns in range(min(most, len(labels)), 1, -1):
        # As matplotlib fills them: the first columns have one row more where the rows do not come out even.
        short, longer = divmod(len(labels), columns)
        ends = [short * (column + 1) + min(column + 1, longer) for column in range(columns)]
        longest = [max(widths[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
        if sum(longest) + gap * (columns - 1) <= width:
            return labels, columns
    return labels, 1


def _cut(text: str, width: float, font: FontProperties) -> str:
    """`text`, or as much of its end as fits into `width` inches, after an ellipsis."""
    if text_width(text, font) <= width:
        return text
    low, high = 1, len(text)  # the number of characters to leave out
    while low < high:
        middle = (low + high) // 2
        if text_width(f"…{text[middle:]}", font) <= width:
            high = middle
        else:
            low = middle + 1
    return f"…{text[low:]}"


def columns_that_fit(style: FigureStyle, most: int) -> int:
    """The number of columns of panels, at most `most`, in a figure of the width that `style` asks for."""
    if style.figure_width is None:
        return most
    em: float = matplotlib.rcParams["font.size"] / POINTS
    return max(1, min(most, int(style.figure_width / (PANEL_EM * em))))


def fit_to_style(figure: Figure, style: FigureStyle) -> None:
    """Give a drawn figure the texts, line widths and size of `style`; raises ConfigError if it is too small for them.

    A figure of the default style stays as it is, but for titles that are wider than the figure, which are wrapped.
    """
    panels = [axis for axis in figure.axes if axis.get_visible() and axis.get_label() != COLOUR_BAR]
    _set_texts(figure, panels, style)
    _wrap_titles(figure, panels)
    if style == FigureStyle(title=style.title, x_label=style.x_label, y_label=style.y_label):
        return
    _scale_lines(figure)
    _lay_out(figure)
    for _ in range(2):  # of which the first changes the width of panels, on which the second depends
        if style.figure_width and not style.figure_height:
            _grow(figure, panels)
            _lay_out(figure)
        _wrap_labels(figure, panels)
        _lay_out(figure)
    if min(_panel_size(figure, axis)[end] for axis in panels for end in (0, 1)) < LEAST_PANEL:
        raise _too_small(figure)


def _set_texts(figure: Figure, panels: Sequence[Axes], style: FigureStyle) -> None:
    """The title and the labels of `style`, in place of those of the figure; labels on the axes that have one."""
    if style.title is not None:
        if len(panels) == 1 and not figure.get_suptitle():
            panels[0].set_title(style.title)
        elif style.title or figure.get_suptitle():
            figure.suptitle(style.title).set_in_layout(bool(style.title))
    for axis in panels:
        if style.x_label is not None and axis.get_xlabel():
            axis.set_xlabel(style.x_label)
        if style.y_label is not None and axis.get_ylabel():
            axis.set_ylabel(style.y_label)


def _wrap_titles(figure: Figure, panels: Sequence[Axes]) -> None:
    if len(panels) == 1:
        _wrap(panels[0].title, 0.85 * figure.get_figwidth())
    for text in figure.texts:  # with the title of several panels
        _wrap(text, 0.97 * figure.get_figwidth())
    title = figure._suptitle  # type: ignore[attr-defined]  # there is no public name for it
    if title is not None:
        _wrap(title, 0.97 * figure.get_figwidth())


def _wrap_labels(figure: Figure, panels: Sequence[Axes]) -> None:
    """Wrap labels to their axes, and the title of a single panel, which is centred above it, to the figure."""
    for axis in panels:
        width, height = _panel_size(figure, axis)
        _wrap(axis.xaxis.label, 1.1 * width)
        _wrap(axis.yaxis.label, 1.1 * height)
    if len(panels) == 1:
        box = panels[0].get_position()
        centre = (box.x0 + box.x1) / 2
        _wrap(panels[0].title, 1.96 * min(centre, 1 - centre) * figure.get_figwidth())


def _wrap(text: Text, width: float) -> None:
    """Break `text` between words into lines of about the same length, at most `width` inches as far as words allow."""
    font, words = text.get_fontproperties(), text.get_text().replace("\n", " ").split(" ")
    lines = _lines(words, width, font)
    for share in (0.9, 0.8, 0.7, 0.6):  # shorter lines, as long as there are not more of them
        shorter = _lines(words, share * width, font)
        lines = shorter if len(shorter) == len(lines) > 1 else lines
    text.set_text("\n".join(lines))


def _lines(words: Sequence[str], width: float, font: FontProperties) -> list[str]:
    lines = [words[0]]
    for word in words[1:]:
        if text_width(f"{lines[-1]} {word}", font) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _scale_lines(figure: Figure) -> None:
    """Multiply the widths of lines and the sizes of markers by the settings' ratio to matplotlib's defaults."""
    settings = matplotlib.rcParams
    width, size = settings["lines.linewidth"] / LINE_WIDTH, settings["lines.markersize"] / MARKER_SIZE
    owners = [axis.lines for axis in figure.axes] + [legend.get_lines() for legend in figure.legends]
    for line in (line for lines in owners for line in lines):
        line.set_linewidth(width * line.get_linewidth())
        line.set_markersize(size * line.get_markersize())
        line.set_markeredgewidth(width * line.get_markeredgewidth())


def _lay_out(figure: Figure) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            figure.draw_without_rendering()
        except UserWarning:
            raise _too_small(figure) from None


def _grow(figure: Figure, panels: Sequence[Axes]) -> None:
    """Make the figure as much higher as its panels need to be."""
    rows = len({round(axis.get_position().y0, 3) for axis in panels})
    missing = max(LEAST_ASPECT * width - height for width, height in (_panel_size(figure, axis) for axis in panels))
    if missing > 0.01:
        figure.set_figheight(math.ceil(100 * (figure.get_figheight() + rows * missing)) / 100)


def _panel_size(figure: Figure, axis: Axes) -> tuple[float, float]:
    """Width and height of a panel, in inches."""
    box = axis.get_position()
    return box.width * figure.get_figwidth(), box.height * figure.get_figheight()


def _too_small(figure: Figure) -> ConfigError:
    width, height = figure.get_size_inches()
    return ConfigError(
        f"a figure of {width:.3g} x {height:.3g} in: too small for its text; give a larger --width or --height, or a "
        f"smaller --font-size"
    )
