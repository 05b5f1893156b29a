"""Figures of an evaluation: fits to tasks, and errors against inner steps. Numbers in, a Figure out; no files."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from maml_cli.evaluation import Evaluation, PointErrors, Statistic, TaskFit
from maml_cli.reporting.axes import integer_axis, log_axis
from maml_cli.reporting.canvas import (
    BACKGROUND,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE_GREY,
    PURPLE,
    Axes,
    Figure,
    drawable,
    legend_below,
    line_styles,
    new_figure,
    ordered_colour,
)
from maml_cli.reporting.figure_layout import columns_that_fit
from maml_cli.reporting.figure_style import DEFAULT_STYLE, FigureStyle
from maml_cli.reporting.format import format_short, plural
from maml_cli.reporting.interval_band import draw_interval
from maml_cli.reporting.step_styles import DASH_DOT_DOT, StepLine, step_lines

COLUMNS = 3
SUPPORT_STYLE: dict[str, Any] = {"ms": 5, "mfc": BACKGROUND, "mec": BLACK, "mew": 1.2, "zorder": 5}
HEADROOM = 30
"""An axis of errors ends at this multiple of a baseline; errors that overflow leave it at the top."""
ROUNDING_ERROR = 1e-12
"""A baseline with a smaller error is not drawn, because it would stretch the axis; the legend states its error."""

BASELINES: dict[str, tuple[str, str, Any]] = {
    "zero": ("Predict zero", GREY, ":"),
    "best_unadapted": ("Best without adapting", PURPLE, "-."),
    "least_squares": ("Least-squares oracle", GREEN, DASH_DOT_DOT),
    "mean_curve": ("Mean curve", PURPLE, "-."),
    "least_squares_sinusoid": ("Least-squares sinusoid", GREEN, DASH_DOT_DOT),
}
"""Baselines that are drawn: key in `Evaluation.baselines` -> name, colour and dash of a horizontal line."""


def fit_figure(
    fits: Sequence[TaskFit],
    *,
    show_steps: Sequence[int],
    trained_steps: int,
    measure: str,
    title: str,
    labels: tuple[str, str] = ("x", "y"),
    style: FigureStyle = DEFAULT_STYLE,
) -> Figure:
    """Small multiples, one task each: truth, support points, and predictions after the inner steps `show_steps`.

    The title of a panel is the error after the first and the last of these steps. `labels` are those of x and y.
    """
    columns = columns_that_fit(style, COLUMNS)
    rows = math.ceil(len(fits) / columns)
    figure = new_figure(3.1 * columns, 2.3 * rows + 1.0, style)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    limits = fit_limits(fits, show_steps)
    lines = step_lines(show_steps, [trained_steps])
    for axis, fit in zip(axes.flat, fits, strict=False):
        draw_fit(axis, fit, lines, show_steps=show_steps, measure=measure)
        axis.set_ylim(*limits)
    return finish_panels(figure, axes, num_panels=len(fits), title=title, labels=labels)


def draw_fit(axis: Axes, fit: TaskFit, lines: Sequence[StepLine], *, show_steps: Sequence[int], measure: str) -> None:
    """Draw one task: truth or other points, predictions after `show_steps` and support points.

    The title is the error after the first and the last of `show_steps`. Other steps of `lines`, which other panels of
    the figure show, have an entry in the legend alone.
    """
    draw_truth(axis, fit)
    draw_interval(axis, fit, show_steps[-1])
    for step, label, line in lines:
        is_shown = step in show_steps
        predictions = [*map(drawable, fit.predictions[step].tolist())] if is_shown else []
        axis.plot(fit.x.tolist() if is_shown else [], predictions, label=label, **line)
    axis.plot(fit.support_x, fit.support_y, "o", label="Support points", **SUPPORT_STYLE)
    ends = dict.fromkeys((show_steps[0], show_steps[-1]))
    errors = [format_short(fit_error(fit, step, measure)) for step in ends]
    axis.set_title(f"{measure.upper()} {' → '.join(errors)}")


def draw_truth(axis: Axes, fit: TaskFit) -> None:
    """Draw the function of a task, or the points of a curve that the learner did not see."""
    if fit.others is None:
        axis.plot(fit.x, fit.truth, color=PALE_GREY, lw=4.0, label="Truth")  # wide: visible below a perfect fit
    else:
        axis.plot(fit.others.x, fit.others.y, "o", color=PALE_GREY, ms=3, label="Other points")


def fit_error(fit: TaskFit, step: int, measure: str) -> float:
    """The mean squared (`mse`) or absolute (`mae`) error of a fit after inner step `step`."""
    return fit.errors[step].abs().pow(2 if measure == "mse" else 1).mean().item()


def fit_limits(fits: Sequence[TaskFit], show_steps: Sequence[int]) -> tuple[float, float]:
    """The range of y: symmetric around zero for functions, that of points and predictions for curves without a
    formula."""
    others = [fit.others.y for fit in fits if fit.others is not None]
    if others:
        points = [value for values in [*others, *(fit.support_y for fit in fits)] for value in values.tolist()]
        curves = [value for fit in fits for step in show_steps for value in fit.predictions[step].tolist()]
        return value_limits(points, curves)
    limit = 1.3 * max(float(fit.truth.abs().max()) for fit in fits) + 0.1
    return -limit, limit


def value_limits(points: Sequence[float], curves: Sequence[float], usual: Sequence[float] = ()) -> tuple[float, float]:
    """The range of an axis of all `points` and of the values of `curves`.

    A curve that runs away is cut off where it leaves the range of the points and the `usual` values by half its length.
    """
    low, high = min([*points, *usual]), max([*points, *usual])
    margin = 0.5 * (high - low) or 1.0
    values = [min(max(value, low - margin), high + margin) for value in curves if math.isfinite(value)]
    low, high = min([*points, *values]), max([*points, *values])
    return drawable(low - 0.08 * (high - low) - 1e-9), drawable(high + 0.08 * (high - low) + 1e-9)


def finish_panels(
    figure: Figure, axes: Any, *, num_panels: int, title: str, labels: tuple[str, str] = ("x", "y")
) -> Figure:
    """`figure` with a title, the labels of x and y, one legend, and the first `num_panels` of its `axes` (rows,
    columns) visible."""
    for axis in axes.flat[num_panels:]:
        axis.set_visible(False)
    for axis in axes.flat[max(0, num_panels - axes.shape[1]) : num_panels]:  # the last panel of each column
        axis.set_xlabel(labels[0])
        axis.tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel(labels[1])
    figure.suptitle(title)
    legend_below(figure, *axes.flat[:num_panels], columns=6)
    return figure


def steps_figure(evaluation: Evaluation, *, measure: str, title: str, style: FigureStyle = DEFAULT_STYLE) -> Figure:
    """Errors (`mse` or `mae`) against inner steps, of the learner and of untrained networks; baselines as lines."""
    figure = new_figure(6.4, 4.8, style)
    axis = figure.subplots()
    trained = {"color": BLUE, "ls": "-", "marker": "o", "zorder": 3}
    _plot_errors(axis, "Meta-trained", [_grid(errors, measure) for errors in evaluation.steps], **trained)
    untrained = {"color": ORANGE, "ls": "--", "marker": "s"}
    _plot_errors(
        axis, "Random initialisation", [_grid(errors, measure) for errors in evaluation.random_init], **untrained
    )
    draw_baselines(axis, evaluation.baselines, measure)
    mark_trained_step(axis, evaluation.trained_steps)
    axis.set(xlabel="Inner steps", ylabel=f"{measure.upper()} on the {evaluation.grid_name} (log scale)", title=title)
    integer_axis(axis)
    scale = _grid(evaluation.baselines.get("zero") or evaluation.random_init[0], measure).mean
    log_axis(axis, top=HEADROOM * max(scale, 1e-9))
    legend_below(figure, axis)
    return figure


def draw_baselines(axis: Axes, baselines: Mapping[str, PointErrors | None], measure: str) -> None:
    """A horizontal line for each known baseline of BASELINES, with its error in the legend."""
    for key, (name, colour, dash) in BASELINES.items():
        errors = baselines.get(key)
        if errors is None:
            continue
        level = _grid(errors, measure).mean
        if level > ROUNDING_ERROR:
            axis.axhline(level, color=colour, ls=dash, lw=1.4, label=f"{name} ({format_short(level)})")
        else:
            axis.plot([], [], " ", label=f"{name} ({format_short(level)}, off axis)")


def mark_trained_step(axis: Axes, steps: int) -> None:
    """A thin vertical line at the trained number of inner steps, named in the legend, where it covers no line."""
    axis.axvline(steps, color=BLACK, lw=0.6, ls=":", label=f"Trained for {plural(steps, 'inner step')}")


class Curve(NamedTuple):
    """The errors of a learner, drawn as one line.

    label: its name in the legend.
    values: statistics over tasks after inner steps 0, 1, ...
    ringed_step: the inner step that is ringed.
    rank: position on an ordered colour scale, from 0 to 1; None for the colours of unordered lines.
    """

    label: str
    values: Sequence[Statistic]
    ringed_step: int
    rank: float | None = None


def curves_figure(
    curves: Sequence[Curve],
    *,
    measure: str,
    ringed: str,
    title: str,
    grid_name: str = "100-point grid",
    baselines: Mapping[str, PointErrors | None] = MappingProxyType({}),
    style: FigureStyle = DEFAULT_STYLE,
) -> Figure:
    """Errors of several learners against inner steps, on a log axis; `ringed` says which inner steps have a ring."""
    figure = new_figure(6.4, 4.4 + 0.2 * math.ceil(len(curves) / 2), style)
    axis = figure.subplots()
    for curve, line in zip(curves, line_styles(), strict=False):
        colour = line["color"] if curve.rank is None else ordered_colour(curve.rank)
        _plot_errors(axis, curve.label, curve.values, **line | {"color": colour})
        ringed_error = drawable(curve.values[curve.ringed_step].mean)
        axis.plot([curve.ringed_step], [ringed_error], "o", ms=11, mfc="none", mec=colour, mew=1.4)
    draw_baselines(axis, baselines, measure)
    axis.set(xlabel=f"Inner steps (ringed: {ringed})", title=title)
    axis.set_ylabel(f"{measure.upper()} on the {grid_name} (log scale)")
    integer_axis(axis)
    initial = [error for curve in curves if (error := drawable(curve.values[0].mean)) > 0]
    if initial:
        log_axis(axis, top=HEADROOM * max(initial))
    legend_below(figure, axis)
    return figure


def _plot_errors(axis: Axes, name: str, values: Sequence[Statistic], **style: Any) -> None:
    """A line of means by inner step with a band of their intervals, cut where it would reach zero on a log axis."""
    steps, means = range(len(values)), [drawable(value.mean) for value in values]
    overflow = next((step for step, mean in enumerate(means) if math.isnan(mean)), None)
    label = name if overflow is None else f"{name} (overflows at inner step {overflow})"
    axis.plot(steps, means, label=label, ms=4, lw=1.6, markevery=_spacing(values), **style)
    low = [drawable(max(value.mean - value.ci95, value.mean / 100)) for value in values]
    high = [drawable(value.mean + value.ci95) for value in values]
    axis.fill_between(steps, low, high, color=style["color"], alpha=0.2, lw=0)


def _spacing(values: Sequence[Statistic]) -> int:
    """Inner steps from one marker of a line to the next: some twenty markers along it."""
    return max(1, len(values) // 20)


def _grid(errors: PointErrors, measure: str) -> Statistic:
    return errors.grid.mse if measure == "mse" else errors.grid.mae
