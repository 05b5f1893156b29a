"""Figures of single test tasks: their errors along the inner steps, over their parameters and by rank, and themselves.

Numbers in, a Figure out; no files.
"""

import math
from collections.abc import Sequence

from maml_cli.evaluation import Landscape, TaskErrors, TaskSample, percentile, worst_1_percent_share
from maml_cli.reporting.axes import colour_cells, integer_axis, log_axis, log_x_axis, percent_axis
from maml_cli.reporting.canvas import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    PALE_GREY,
    Figure,
    drawable,
    font_size,
    legend_below,
    new_figure,
)
from maml_cli.reporting.figure_style import DEFAULT_STYLE, FigureStyle
from maml_cli.reporting.figures import mark_trained_step
from maml_cli.reporting.format import plural
from maml_cli.reporting.step_styles import fit_styles, step_label

MOST_POINTS = 300
"""Points of a line of ranks, evenly spaced on its log axis: more would not be visible."""


def path_figure(
    task_errors: TaskErrors,
    *,
    trained_steps: int,
    num_lines: int,
    title: str,
    style: FigureStyle = DEFAULT_STYLE,
) -> Figure:
    """Errors of single tasks along the inner steps: the median, the range of 10 to 90 %, and the first `num_lines`."""
    errors = task_errors.errors
    figure = new_figure(6.4, 4.8, style)
    axis = figure.subplots()
    ordered = errors.double().nan_to_num(nan=math.inf).sort(dim=1).values
    steps = range(len(errors))
    low, median, high = ([drawable(percentile(step, share)) for step in ordered] for share in (0.1, 0.5, 0.9))
    axis.fill_between(steps, low, high, color=BLUE, alpha=0.2, lw=0, label="10 to 90 % of the tasks")
    for index, values in enumerate(errors.T[:num_lines].tolist()):
        label = "Single tasks" if index == 0 else "_nolegend_"
        axis.plot(steps, [*map(drawable, values)], color=GREY, lw=0.6, alpha=0.6, label=label)
    spacing = max(1, len(errors) // 20)
    axis.plot(steps, median, color=BLUE, lw=2.0, marker="o", ms=4, markevery=spacing, label="Median", zorder=3)
    mark_trained_step(axis, trained_steps)
    axis.set(xlabel="Inner steps", ylabel=_error_label(task_errors), title=title)
    integer_axis(axis)
    log_axis(axis)
    legend_below(figure, axis, columns=3)
    return figure


def tail_figure(
    task_errors: TaskErrors,
    *,
    show_steps: Sequence[int],
    trained_steps: int,
    title: str,
    style: FigureStyle = DEFAULT_STYLE,
) -> Figure:
    """The share of tasks with at least some error, on log axes (empirical survival function), after some inner steps.

    The legend has the share of the worst 1 % of tasks in the mean.
    """
    errors = task_errors.errors
    figure = new_figure(6.4, 4.8, style)
    axis = figure.subplots()
    least = math.inf
    for (step, line), marker in zip(fit_styles(show_steps, trained_steps), "so^Dv<>P" * len(show_steps), strict=False):
        ordered = errors[step].double().nan_to_num(nan=math.inf).sort().values
        share = worst_1_percent_share(ordered)
        note = "" if share is None else f": worst 1 % carry {100 * share:.0f} % of the mean"
        ranks = _spread_ranks(len(ordered))
        values = [drawable(ordered[-rank].item()) for rank in ranks]
        shares = [rank / len(ordered) for rank in ranks]
        least = min([least, *(value for value in values if value > 0)])
        label = f"{step_label(step, trained_steps)}{note}"
        axis.plot(values, shares, marker=marker, ms=4, markevery=max(1, len(ranks) // 10), label=label, **line)
    if len(errors.T) >= 100:
        axis.axhline(0.01, color=BLACK, lw=0.6, ls=":")
        axis.text(
            0.01,
            0.01,
            "worst 1 %",
            ha="left",
            va="bottom",
            fontsize=font_size(8 / 9),
            transform=axis.get_yaxis_transform(),
        )
    axis.set(xlabel=_error_label(task_errors), title=title)
    axis.set_ylabel("Test tasks with at least this error")
    log_x_axis(axis, least)
    percent_axis(axis, 1 / len(errors.T))
    legend_below(figure, axis, columns=1)
    return figure


def _spread_ranks(count: int) -> list[int]:
    """Ranks from 1 (the worst) to `count`, whose logarithms are evenly spaced as far as there are as many."""
    return sorted({round(count ** (index / MOST_POINTS)) for index in range(MOST_POINTS + 1)})


def _error_label(task_errors: TaskErrors) -> str:
    return f"{task_errors.measure.upper()} on the {task_errors.test_tasks.family.grid_name} (log scale)"


def landscape_figure(landscape: Landscape, *, measure: str, title: str, style: FigureStyle = DEFAULT_STYLE) -> Figure:
    """The mean error of the tasks in each cell of two parameters, on a log colour scale; cells without tasks are
    pale grey."""
    figure = new_figure(6.0, 4.8, style)
    axis = figure.subplots()
    positive = [value for value in map(drawable, landscape.errors.flatten().tolist()) if value > 0]
    least, greatest = min(positive, default=1.0), max(positive, default=1.0)
    shown = landscape.errors.clamp(max=greatest).masked_fill(landscape.errors == 0, least)
    edges = [edge.tolist() for edge in (landscape.x_edges, landscape.y_edges)]
    axis.set_facecolor(PALE_GREY)
    label = f"{measure.upper()}, mean of a cell (log scale)"
    colour_cells(figure, axis, edges, shown.numpy(), limits=(least, greatest), label=label)
    names = [name[:1].upper() + name[1:].replace("_", " ") for name in (landscape.x_name, landscape.y_name)]
    axis.set(xlabel=names[0], ylabel=names[1], title=title)
    return figure


def tasks_figure(
    sample: TaskSample, *, title: str, labels: tuple[str, str] = ("x", "y"), style: FigureStyle = DEFAULT_STYLE
) -> Figure:
    """A sample of the functions of test tasks, and their mean."""
    figure = new_figure(6.4, 4.4, style)
    axis = figure.subplots()
    for index, (x, y) in enumerate(sample.lines):
        label = plural(len(sample.lines), "test task") if index == 0 else "_nolegend_"
        axis.plot(x, [*map(drawable, y.tolist())], color=BLUE, lw=0.9, alpha=0.45, label=label)
    if sample.mean is not None:
        x, y = sample.mean
        name = f"Mean of {plural(sample.num_tasks, 'test task')}" if sample.is_mean_of_tests else "Mean training curve"
        axis.plot(x, [*map(drawable, y.tolist())], color=ORANGE, ls="--", lw=2.4, zorder=3, label=name)
    axis.set(xlabel=labels[0], ylabel=labels[1], title=title)
    legend_below(figure, axis)
    return figure
