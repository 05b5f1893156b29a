"""Figures of fits: a row of panels for each of several runs, and an animation of the inner steps."""

from collections.abc import Sequence
from typing import NamedTuple

from maml_cli.evaluation import TaskFit
from maml_cli.reporting.animation import Animation
from maml_cli.reporting.canvas import BLUE, Figure, drawable, font_size, new_figure
from maml_cli.reporting.figure_style import DEFAULT_STYLE, FigureStyle
from maml_cli.reporting.figures import (
    SUPPORT_STYLE,
    draw_fit,
    draw_truth,
    finish_panels,
    fit_error,
    fit_limits,
)
from maml_cli.reporting.format import format_short
from maml_cli.reporting.step_styles import fit_styles, step_label

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
    trained_steps: inner steps of its training.
    measure: error in the titles of the panels, `mse` or `mae`.
    """

    name: str
    fits: Sequence[TaskFit]
    trained_steps: int
    measure: str


def fit_rows_figure(
    rows: Sequence[FitRow],
    *,
    show_steps: Sequence[int],
    title: str,
    labels: tuple[str, str] = ("x", "y"),
    style: FigureStyle = DEFAULT_STYLE,
) -> Figure:
    """A row of panels for each run and a column for each task, as Figure 2 of Finn et al. 2017 (arXiv:1703.03400).

    The title of a panel is the error before and after all inner steps. A step has the same line in all rows; that of
    the first run's training is emphasised.
    """
    columns = len(rows[0].fits)
    figure = new_figure(2.6 * columns + 0.6, 2.1 * len(rows) + 1.0, style)
    axes = figure.subplots(len(rows), columns, sharex=True, sharey=True, squeeze=False)
    limits = fit_limits([fit for row in rows for fit in row.fits])
    for row_axes, row in zip(axes, rows, strict=True):
        for axis, fit in zip(row_axes, row.fits, strict=True):
            draw_fit(axis, fit, show_steps=show_steps, trained_steps=rows[0].trained_steps, measure=row.measure)
            axis.set_ylim(*limits)
        row_axes[-1].annotate(
            row.name,
            (1.03, 0.5),
            xycoords="axes fraction",
            rotation=270,
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
    figure = new_figure(3.1 * len(fits) + 0.4, 3.4, style)
    axes = figure.subplots(1, len(fits), sharey=True, squeeze=False)
    steps = len(fits[0].predictions) - 1
    moving = []
    points = []
    for axis, fit in zip(axes[0], fits, strict=True):
        draw_truth(axis, fit)
        ((_, before),) = fit_styles([0], trained_steps)
        start = [*map(drawable, fit.predictions[0].tolist())]
        axis.plot(fit.x, start, label=step_label(0, trained_steps), **before)
        moving += axis.plot(fit.x, start, color=BLUE, lw=2.0, label="Adapting")
        points += axis.plot(fit.support_x, fit.support_y, "o", label="Support points", **SUPPORT_STYLE)
        axis.set_ylim(*fit_limits(fits))
    frames = _frames(steps)

    def draw_frame(frame: int) -> None:
        step, share = frames[frame]
        for axis, line, fit in zip(axes[0], moving, fits, strict=True):
            low, high = fit.predictions[step], fit.predictions[min(step + 1, steps)]
            line.set_ydata([*map(drawable, (low + share * (high - low)).tolist())])
            axis.set_title(f"{measure.upper()} {format_short(fit_error(fit, step, measure))}")
        mark = " (trained)" if step == trained_steps else ""
        figure.suptitle(f"{title}, inner step {step} of {steps}{mark}")

    finish_panels(figure, axes, num_panels=len(fits), title=f"{title}, inner step 0 of {steps}", labels=labels)
    draw_frame(0)
    changed = [*moving, *points, *(axis.title for axis in axes[0]), *figure.texts]
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
