"""Figures over outer steps: losses, alphas, and the time of an outer step. Numbers in, a Figure out; no files."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from maml_cli.evaluation import mean, t_interval
from maml_cli.reporting.axes import integer_axis, log_axis
from maml_cli.reporting.canvas import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    PURPLE,
    Axes,
    Figure,
    drawable,
    legend_below,
    line_styles,
    new_figure,
)
from maml_cli.reporting.figure_layout import columns_that_fit
from maml_cli.reporting.figure_style import DEFAULT_STYLE, FigureStyle
from maml_cli.reporting.format import format_short, plural
from maml_cli.reporting.matplotlib_import import NullLocator

COLUMNS = 3
HEADROOM = 3
"""The axis of losses ends at this multiple of the error without adapting, or of the median loss; peaks leave it."""

Trace = Sequence[tuple[int, Sequence[float]]]
"""Outer steps, each with a value for each run (NaN for runs that diverged) or for each inner step."""


class TrainingTraces(NamedTuple):
    """The course of a training.

    losses: mean meta-training losses since the previous record.
    before: errors on validation tasks before adapting.
    after: errors on validation tasks after `num_steps` inner steps.
    num_steps: inner steps of the validation.
    nll: mean negative log-likelihoods in place of the losses, for trainings that minimise these.
    """

    losses: Trace
    before: Trace
    after: Trace
    num_steps: int
    nll: Trace = ()


def curve_figure(
    traces: TrainingTraces,
    *,
    loss_label: str,
    measure: str,
    floor: float | None,
    title: str,
    style: FigureStyle = DEFAULT_STYLE,
) -> Figure:
    """Meta-training loss, and validation errors before and after adapting, over outer steps.

    Lines are means over runs with their 95 % intervals. `floor` is the least error possible without adapting. Negative
    log-likelihoods, which may be below zero, have a panel of their own.
    """
    figure = new_figure(7.0, 6.4 if traces.nll else 4.6, style)
    axis, *below = figure.subplots(2 if traces.nll else 1, sharex=True, squeeze=False)[:, 0]
    name = measure.upper()
    losses = _finite(traces.losses) or [0.0]
    top = HEADROOM * max([*_finite(traces.before), floor or 0.0, median(losses)]) or math.inf
    peak = max(losses)
    peak_text = f", peak {format_short(peak)}" if peak > top else ""
    validation: dict[str, Any] = {"lw": 1.6, "marker": ".", "ms": 4}
    lines = (
        (traces.losses, f"{loss_label}{peak_text}", {"color": GREY, "ls": "-", "lw": 0.9}),
        (traces.before, f"Validation {name}, before adapting", {"color": ORANGE, "ls": "--", **validation}),
        (
            traces.after,
            f"Validation {name}, after {plural(traces.num_steps, 'inner step')}",
            {"color": BLUE, "ls": "-", **validation},
        ),
    )
    for trace, label, line in lines:
        if trace:
            _plot_mean(axis, trace, label=label, **line)
    if floor is not None and floor > 0:
        label = f"Best {name} without adapting ({format_short(floor)})"
        axis.axhline(floor, color=PURPLE, ls=":", lw=1.4, label=label)
    axis.set(ylabel="Loss (log scale)", title=title)
    for panel in below:
        _plot_mean(panel, traces.nll, label=loss_label, color=GREY, ls="-", lw=0.9)
        panel.set(ylabel="Negative log-likelihood")
    [axis, *below][-1].set(xlabel="Outer steps")
    integer_axis(axis)
    log_axis(axis, top=top)
    legend_below(figure, axis, *below)
    return figure


def alpha_figure(
    traces: Mapping[str, Trace], *, is_learned: bool, title: str, style: FigureStyle = DEFAULT_STYLE
) -> Figure:
    """Alphas over outer steps: a panel for each key, a line for each inner step with an alpha of its own.

    traces: key -> outer steps, each with a value for each of these inner steps. Fixed alphas are grey and dashed.
    """
    columns = min(len(traces), columns_that_fit(style, COLUMNS))
    rows = math.ceil(len(traces) / columns)
    figure = new_figure(max(6.4, 3.1 * columns + 0.6), 2.2 * rows + 1.2, style)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axis, (key, points) in zip(axes.flat, traces.items(), strict=False):
        outer_steps = [step for step, _ in points]
        by_step = list(zip(*(map(drawable, values) for _, values in points), strict=True))
        for index, (values, look) in enumerate(zip(by_step, line_styles(), strict=False)):
            line = (
                look | {"ms": 3.5, "markevery": max(1, len(values) // 8)} if is_learned else {"color": GREY, "ls": "--"}
            )
            label = f"Inner step {index + 1}" if len(by_step) > 1 else "All inner steps"
            axis.plot(outer_steps, values, lw=1.4, label=label if is_learned else "Fixed", **line)
        if len(traces) > 1:
            axis.set_title(key)
        axis.axhline(0, color=GREY, lw=0.5)
    for axis in axes.flat[len(traces) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("Outer steps")
        integer_axis(axis, most_ticks=7 if columns == 1 else 4)
    for axis in axes[:, 0]:
        axis.set_ylabel("Alpha")
    legend_below(figure, *axes.flat[: len(traces)], columns=5)
    figure.suptitle(title)
    return figure


def growth_figure(points: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> Figure:
    """Time of an outer step against the size of its work, on log axes: a panel for each size, a line for each engine.

    points: name of the size -> engine -> (size, milliseconds). The dotted line grows with the arithmetic, from the
    first point of the fastest engine.
    """
    figure = new_figure(3.1 * len(points) + 0.6, 3.4)
    names = dict.fromkeys(engine for engines in points.values() for engine in engines)
    styles = dict(zip(names, line_styles(), strict=False))
    for axis, (name, engines) in zip(figure.subplots(1, len(points), squeeze=False)[0], points.items(), strict=True):
        for engine, values in engines.items():
            axis.plot(*zip(*values, strict=True), ms=4, label=engine, **styles[engine])
        (start, least), *_, (end, _) = min(engines.values(), key=lambda values: values[0][1])
        power = 2 if name.startswith("width") else 1
        growth = [least, least * (end / start) ** power]
        axis.plot([start, end], growth, ":", color=BLACK, lw=1, label="Proportional to the arithmetic")
        axis.set(xscale="log", xlabel=name[:1].upper() + name[1:])
        ticks = sorted({size for values in engines.values() for size, _ in values})
        axis.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks], minor=False)
        axis.xaxis.set_minor_locator(NullLocator())
        log_axis(axis)
    figure.axes[0].set_ylabel("Milliseconds per outer step")
    legend_below(figure, *figure.axes, columns=len(names) + 1)
    return figure


def _finite(trace: Trace) -> list[float]:
    """All values of all runs that can be drawn."""
    return [value for _, values in trace for value in map(drawable, values) if not math.isnan(value)]


def _plot_mean(axis: Axes, trace: Trace, **style: Any) -> None:
    """A line of means over the runs that have not diverged, and a band of their 95 % intervals if there are several."""
    steps = [step for step, _ in trace]
    active = [_finite([record]) for record in trace]
    means = [mean(values) if values else math.nan for values in active]
    axis.plot(steps, means, **style | ({"marker": "."} if len(trace) == 1 else {}))
    if max(map(len, active)) > 1:
        widths = [t_interval(values) if len(values) > 1 else math.nan for values in active]
        low = [max(value - width, value / 100) for value, width in zip(means, widths, strict=True)]
        high = [value + width for value, width in zip(means, widths, strict=True)]
        axis.fill_between(steps, low, high, color=style["color"], alpha=0.2, lw=0)
