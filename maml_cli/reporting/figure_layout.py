"""The layout of figures: titles and labels wrapped, ticks apart, and the sizes that a style asks for."""

import contextlib
import itertools
import math
import warnings
from collections.abc import Sequence

from maml_cli.errors import ConfigError
from maml_cli.reporting.figure_style import FigureStyle
from maml_cli.reporting.figure_text import POINTS, wrapped
from maml_cli.reporting.matplotlib_import import (
    Axes,
    Figure,
    FixedLocator,
    Text,
    matplotlib,
)

COLOUR_BAR = "<colorbar>"
"""The label that matplotlib gives to the axes of a colour bar."""
LEAST_ASPECT = 0.62
"""Height of a panel over its width, where the width of a figure is given and its height follows."""
PANEL_EM = 14.5
"""Least width of a panel, with its labels, as a multiple of the font size."""
HEIGHTS = (1.0, 1.25, 1.5, 2.0, 3.0)
"""Multiples of the height of a figure that are tried where it follows from the width."""
TICK_GAP = 3.0
"""Least distance of the labels of neighbouring ticks, in pixels."""
LEAST_PANEL = 0.35
"""Least width and height of a panel, in inches."""
UPRIGHT = 270
"""Rotation of the name of a row, in degrees."""
LINE_WIDTH, MARKER_SIZE = 1.5, 6.0
"""matplotlib's defaults of lines.linewidth and lines.markersize, for which line widths of figures are chosen."""


def columns_that_fit(style: FigureStyle, most: int, *, em: float = PANEL_EM) -> int:
    """The number of columns of panels, at most `most`, each at least `em` font sizes wide, in a figure of the width
    that `style` asks for."""
    if style.figure_width is None:
        return most
    inches: float = em * matplotlib.rcParams["font.size"] / POINTS
    return max(1, min(most, int(style.figure_width / inches)))


def fit_to_style(figure: Figure, style: FigureStyle) -> None:
    """Give a drawn figure the texts, line widths and size of `style`; raises ConfigError if it is too small for them.

    A figure of the default style stays as it is, but for titles that are wider than the figure, which are wrapped.
    """
    panels = [axis for axis in figure.axes if axis.get_visible() and axis.get_label() != COLOUR_BAR]
    _set_texts(figure, panels, style)
    _wrap_titles(figure, panels)
    is_high = bool(style.figure_width and not style.figure_height)
    if any(axis.texts for axis in panels):
        _lay_out(figure, is_high=is_high)
        _wrap_row_names(figure, panels)
    if style == FigureStyle(title=style.title, x_label=style.x_label, y_label=style.y_label):
        return
    _scale_lines(figure)
    _lay_out(figure, is_high=is_high)
    for _ in range(2):  # of which the first changes the width of panels, on which the second depends
        if is_high:
            _grow(figure, panels)
            _lay_out(figure, is_high=True)
        _wrap_labels(figure)
        _wrap_row_names(figure, panels)
        _lay_out(figure, is_high=is_high)
        _thin_ticks(panels)
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
    wrap_title(figure)


def wrap_title(figure: Figure) -> None:
    """Wrap the title of a figure of several panels to its width."""
    title = figure._suptitle  # type: ignore[attr-defined]  # there is no public name for it
    if title is not None:
        _wrap(title, 0.97 * figure.get_figwidth())


def _wrap_row_names(figure: Figure, panels: Sequence[Axes]) -> None:
    """Wrap texts that stand upright beside a row of panels to the height of the row."""
    for axis in panels:
        for text in (text for text in axis.texts if text.get_rotation() == UPRIGHT):
            _wrap(text, 1.05 * _panel_size(figure, axis)[1])


def _wrap_labels(figure: Figure) -> None:
    """Wrap labels and the titles of several panels to their axes, and the title of a single panel, which is centred
    above it, to the figure."""
    shown = [axis for axis in figure.axes if axis.get_visible()]
    panels = [axis for axis in shown if axis.get_label() != COLOUR_BAR]
    for axis in shown:
        width, height = _panel_size(figure, axis)
        _wrap(axis.xaxis.label, 1.1 * width)
        _wrap(axis.yaxis.label, 1.1 * height)
        if len(panels) > 1:
            _wrap(axis.title, 1.1 * width)
    if len(panels) == 1:
        box = panels[0].get_position()
        centre = (box.x0 + box.x1) / 2
        _wrap(panels[0].title, 1.96 * min(centre, 1 - centre) * figure.get_figwidth())


def _wrap(text: Text, width: float) -> None:
    """Break `text` into lines of at most `width` inches. Its label is the text without breaks, for the next time."""
    shown, unbroken = text.get_text(), str(text.get_label())
    if "".join(shown.split()) != "".join(unbroken.split()):
        unbroken = shown
    text.set_text("\n".join(wrapped(line, width, text.get_fontproperties()) for line in unbroken.split("\n")))
    text.set_label(unbroken)


def _scale_lines(figure: Figure) -> None:
    """Multiply the widths of lines and the sizes of markers by the settings' ratio to matplotlib's defaults."""
    settings = matplotlib.rcParams
    width, size = settings["lines.linewidth"] / LINE_WIDTH, settings["lines.markersize"] / MARKER_SIZE
    owners = [axis.lines for axis in figure.axes] + [legend.get_lines() for legend in figure.legends]
    for line in (line for lines in owners for line in lines):
        line.set_linewidth(width * line.get_linewidth())
        line.set_markersize(size * line.get_markersize())
        line.set_markeredgewidth(width * line.get_markeredgewidth())


def _lay_out(figure: Figure, *, is_high: bool) -> None:
    """Compute the layout; with `is_high` the figure becomes as high as its texts need."""
    height = figure.get_figheight()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for factor in HEIGHTS if is_high else HEIGHTS[:1]:
            figure.set_figheight(factor * height)
            with contextlib.suppress(UserWarning):
                figure.draw_without_rendering()
                if not is_high or min(_panel_size(figure, axis)[1] for axis in figure.axes) > LEAST_PANEL:
                    return
    raise _too_small(figure)


def _thin_ticks(panels: Sequence[Axes]) -> None:
    """Leave out every second label of an axis as long as two of them overlap."""
    for panel in panels:
        for end, axis, limits in ((0, panel.xaxis, panel.get_xlim()), (1, panel.yaxis, panel.get_ylim())):
            low, high = sorted(limits)
            labels = [label for label in axis.get_ticklabels() if low <= label.get_position()[end] <= high]
            shown = [label for label in labels if label.get_text()]
            ends = [label.get_window_extent().get_points()[:, end] for label in shown]
            spacing = 1
            while any(a[1] + TICK_GAP > b[0] for a, b in itertools.pairwise(ends[::spacing])):
                spacing *= 2
            if spacing > 1:
                axis.set_major_locator(FixedLocator([label.get_position()[end] for label in shown[::spacing]]))


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
