"""Figures of fits: a row of panels for each of several runs, and an animation of the inner steps."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from maml_cli.evaluation import TaskFit
from maml_cli.reporting.animation import Animation
from maml_cli.reporting.canvas import BLUE, Figure, drawable, font_size, new_figure
from maml_cli.reporting.figure_layout import UPRIGHT, columns_that_fit
from maml_cli.reporting.figure_style import DEFAULT_STYLE, FigureStyle
from maml_cli.reporting.figures import (
    SUPPORT_STYLE,
    draw_fit,
    draw_truth,
    finish_panels,
    fit_error,
    fit_limits,
)
from maml_cli.reporting.format import format_short, plural
from maml_cli.reporting.interval_band import draw_interval, move_interval
from maml_cli.reporting.step_styles import fit_styles, step_label, step_lines

FRAMES_PER_SECOND = 10
FRAMES_OF_STEP, FRAMES_OF_PAUSE = 6, 5
"""Frames of the change from one inner step to the next, and of the pause after it."""
FRAMES_AT_END = 15
MOST_FRAMES = 400
"""Frames of an animation: with more inner steps, the changes are shorter."""


class FitRow(NamedTuple):
    """The fits of one run.

    name: of the run.
    fits: to each task.
    show_steps: inner steps after which they are drawn, in their order.
    trained_steps: inner steps of its training.
    measure: error in the titles of the panels, `mse` or `mae`.
    """

    name: str
    fits: Sequence[TaskFit]
    show_steps: Sequence[int]
    trained_steps: int
    measure: str


def fit_rows_figure(
    rows: Sequence[FitRow],
    *,
    title: str,
    labels: tuple[str, str] = ("x", "y"),
    style: FigureStyle = DEFAULT_STYLE,
) -> Figure:
    """A row of panels for each run and a column for each task, as Figure 2 of Finn et al. 2017 (arXiv:1703.03400).

    The title of a panel is the error after the first and the last inner step that its row shows. A step has the same
    line in all rows; that of the first run's training is emphasised. Where the runs were trained for different numbers
    of inner steps, each row names its own.
    """
    columns = len(rows[0].fits)
    figure = new_figure(2.6 * columns + 0.6, 2.1 * len(rows) + 1.0, style)
    axes = figure.subplots(len(rows), columns, sharex=True, sharey=True, squeeze=False)
    trained = [row.trained_steps for row in rows]
    lines = step_lines(sorted({step for row in rows for step in row.show_steps}), trained)
    limits = [fit_limits(row.fits, row.show_steps) for row in rows]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    for row_axes, row in zip(axes, rows, strict=True):
        for axis, fit in zip(row_axes, row.fits, strict=True):
            draw_fit(axis, fit, lines, show_steps=row.show_steps, measure=row.measure)
            axis.set_ylim(low, high)
        row_axes[-1].annotate(
            row.name if len({*trained}) == 1 else f"{row.name}\ntrained: {plural(row.trained_steps, 'inner step')}",
            (1.03, 0.5),
            xycoords="axes fraction",
            rotation=UPRIGHT,
            ha="left",
            va="center",
            fontsize=font_size(10 / 9),
            fontweight="bold",
        )
    return finish_panels(figure, axes, num_panels=axes.size, title=title, labels=labels)


def adapting(
    fits: Sequence[TaskFit],
    *,
    trained_steps: int,
    measure: str,
    title: str,
    labels: tuple[str, str] = ("x", "y"),
    style: FigureStyle = DEFAULT_STYLE,
) -> Animation:
    """The predictions for each task after inner steps 0, 1, ..., with a pause at each.

    Between two inner steps the line moves evenly from one prediction to the next; titles are those of the last step
    that was reached.
    """
    columns = columns_that_fit(style, len(fits))
    rows = math.ceil(len(fits) / columns)
    figure = new_figure(3.1 * columns + 0.4, 2.3 * rows + 1.1, style)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    steps = len(fits[0].predictions) - 1
    moving = []
    points = []
    bands = []
    panels = axes.flat[: len(fits)]
    for axis, fit in zip(panels, fits, strict=True):
        draw_truth(axis, fit)
        bands += draw_interval(axis, fit, 0)
        ((_, before),) = fit_styles([0], trained_steps)
        start = [*map(drawable, fit.predictions[0].tolist())]
        axis.plot(fit.x, start, label=step_label(0, trained_steps), **before)
        moving += axis.plot(fit.x, start, color=BLUE, lw=2.0, label="Adapting")
        points += axis.plot(fit.support_x, fit.support_y, "o", label="Support points", **SUPPORT_STYLE)
        axis.set_ylim(*fit_limits(fits, range(steps + 1)))
    frames = _frames(steps)

    def draw_frame(frame: int) -> None:
        step, share = frames[frame]
        for axis, line, fit in zip(panels, moving, fits, strict=True):
            low, high = fit.predictions[step], fit.predictions[min(step + 1, steps)]
            line.set_ydata([*map(drawable, (low + share * (high - low)).tolist())])
            axis.set_title(f"{measure.upper()} {format_short(fit_error(fit, step, measure))}")
        for band, fit in zip(bands, fits, strict=bool(bands)):
            move_interval(band, fit, step, share)
        mark = " (trained)" if step == trained_steps else ""
        figure.suptitle(f"{title}, inner step {step} of {steps}{mark}")

    finish_panels(figure, axes, num_panels=len(fits), title="", labels=labels)
    draw_frame(frames.index((min(trained_steps, steps), 0.0)))  # with the longest title, for the layout
    changed = [*bands, *moving, *points, *(axis.title for axis in panels), *figure.texts]
    return Animation(figure, draw_frame, changed, len(frames), FRAMES_PER_SECOND)


def _frames(steps: int) -> list[tuple[int, float]]:
    """The last inner step that was reached in each frame, and the share of the change to the next."""
    moves = max(1, min(FRAMES_OF_STEP, MOST_FRAMES // max(1, steps) - 1))
    pause = max(1, min(FRAMES_OF_PAUSE, MOST_FRAMES // max(1, steps) - moves))
    frames = [(0, 0.0)] * FRAMES_OF_PAUSE
    for step in range(steps):
        shares = [(index / moves) ** 2 * (3 - 2 * index / moves) for index in range(1, moves)]
        frames += [(step, share) for share in shares] + [(step + 1, 0.0)] * pause
    return frames + [(steps, 0.0)] * FRAMES_AT_END
