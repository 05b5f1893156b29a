"""Figures: numbers in, a matplotlib Figure out. No files, no pyplot state.

Colours are Okabe and Ito's, and steps run through cividis from light to dark: both hold for colour-blind readers
and in grey; lines differ in dash as well.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from maml_cli.evaluation import Evaluation, PointErrors, Statistic, TaskFit, mean, t_interval

BLUE, ORANGE, GREEN, PURPLE, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#767676"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, BLACK, "#E69F00", "#56B4E9")
COLUMNS = 3

STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "legend.frameon": False,
    "svg.hashsalt": "maml",
    "pdf.fonttype": 42,
}


def fit_figure(fits: Sequence[TaskFit], *, measure: str, title: str) -> Figure:
    """Small multiples, one task each: truth, support points, and the network before and after each inner step."""
    rows = math.ceil(len(fits) / COLUMNS)
    figure = Figure(figsize=(3.1 * COLUMNS, 2.3 * rows + 1.0), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    last = len(fits[0].predictions) - 1
    for axis, fit in zip(axes.flat, fits, strict=False):
        axis.plot(fit.x, fit.truth, color=BLACK, lw=1.6, label="truth")
        for step, values in enumerate(fit.predictions):
            axis.plot(fit.x, values, label=_step_label(step), **_step_style(step, last))
        axis.plot(
            fit.support_x,
            fit.support_y,
            "o",
            ms=5,
            mfc="white",
            mec=BLACK,
            mew=1.2,
            zorder=5,
            label="support points",
        )
        power = 2 if measure == "mse" else 1
        before, after = ((fit.predictions[i] - fit.truth).abs().pow(power).mean().item() for i in (0, last))
        axis.set_title(f"{measure.upper()} {_short(before)} → {_short(after)}")
        reach = 1.3 * max(float(fit.truth.abs().max()) for fit in fits) + 0.1
        axis.set_ylim(-reach, reach)
    for axis in axes.flat[len(fits) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("x")
    for axis in axes[:, 0]:
        axis.set_ylabel("y")
    figure.suptitle(title, fontsize=10)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))
    return figure


def curve_figure(
    losses: Sequence[tuple[int, Sequence[float]]],
    evaluations: Sequence[tuple[int, Sequence[Sequence[float]]]],
    *,
    loss_label: str,
    measure: str,
    floor: float | None,
    title: str,
) -> Figure:
    """Meta-training loss, and the validation error before and after adapting, over outer steps.

    Each with a value for each run side by side: their mean is drawn, with its 95 % interval over seeds.
    """
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axis = figure.subplots()
    if losses:
        _mean_of_runs(axis, losses, "-", color=GREY, lw=0.9, label=loss_label)
    if evaluations:
        last = len(evaluations[0][1]) - 1
        for index, color, dash in ((0, ORANGE, "--"), (last, BLUE, "-")):
            found = [(step, values[index]) for step, values in evaluations]
            label = f"validation {measure.upper()}, {_step_label(index)}"
            _mean_of_runs(axis, found, dash, color=color, lw=1.6, marker=".", ms=4, label=label)
    if floor is not None and floor > 0:
        axis.axhline(
            floor, color=PURPLE, ls=":", lw=1.4, label=f"best {measure.upper()} without adapting ({floor:.3g})"
        )
    axis.set(xlabel="outer steps", ylabel="loss (log scale)", title=title)
    _log_scale(axis)
    axis.legend()
    return figure


def steps_figure(evaluation: Evaluation, *, measure: str, title: str) -> Figure:
    """The error (`mse` or `mae`) against inner steps, the untrained network, and the baselines as lines."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    baselines = evaluation.baselines
    by_step = partial(_errors_by_step, axis)
    by_step(_grids(evaluation.random_init, measure), color=ORANGE, dash="--", marker="s", label="random initialisation")
    by_step(_grids(evaluation.steps, measure), color=BLUE, dash="-", marker="o", label="meta-trained")
    for name, color, dash in (("zero", GREY, ":"), ("best_unadapted", PURPLE, "-.")):
        if (errors := baselines.get(name)) is None:
            continue
        value = _grid(errors, measure).mean
        words = "predict zero" if name == "zero" else "best without adapting"
        if value > 0:
            axis.axhline(value, color=color, ls=dash, lw=1.4, label=f"{words} ({_short(value)})")
    oracle = _grid(errors, measure).mean if (errors := baselines.get("least_squares")) else math.nan
    if oracle > 1e-12:
        axis.axhline(oracle, color=GREEN, ls=(0, (1, 1)), lw=1.4, label=f"least-squares oracle ({_short(oracle)})")
    elif math.isfinite(oracle):
        axis.plot([], [], " ", label=f"least-squares oracle: {oracle:.0e}, below the axis")
    axis.axvline(evaluation.trained_steps, color=BLACK, lw=0.6, ls=":")
    trained = f"trained for {evaluation.trained_steps}"
    axis.text(evaluation.trained_steps, 0.99, f" {trained}", transform=axis.get_xaxis_transform(), va="top", fontsize=8)
    axis.set(xlabel="inner steps", ylabel=f"{measure.upper()} on the 100-point grid (log scale)", title=title)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    _log_scale(axis)
    # What blows up leaves the figure at the top instead of flattening everything else.
    scale = _grid(baselines.get("zero") or evaluation.random_init[0], measure).mean
    axis.set_ylim(top=min(axis.get_ylim()[1], 30 * max(scale, 1e-9)))
    axis.legend()
    return figure


class Curve(NamedTuple):
    """The error of a learner after inner steps 0, 1, ..., and the step to look at."""

    label: str
    values: Sequence[Statistic]
    marked_step: int


def curves_figure(curves: Sequence[Curve], *, measure: str, title: str) -> Figure:
    """The errors of several learners against inner steps, on a log axis, ringed at the step to look at."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    styles = itertools.cycle(itertools.product(("-", "--", ":"), COLOURS))
    for index, (curve, (dash, color)) in enumerate(zip(curves, styles, strict=False)):
        marker = "os^Dv<>P"[index % 8]
        lost = [step for step, value in enumerate(curve.values) if not math.isfinite(value.mean)]
        label = f"{curve.label} (overflows at step {lost[0]})" if lost else curve.label
        _errors_by_step(axis, curve.values, color=color, dash=dash, marker=marker, label=label)
        axis.plot(
            [curve.marked_step],
            [_or_nan(curve.values[curve.marked_step].mean)],
            marker,
            ms=9,
            mfc="none",
            mec=color,
            mew=1.4,
        )
    axis.set(
        xlabel="inner steps (ringed: as compared, or as trained)",
        ylabel=f"{measure.upper()} on the 100-point grid (log scale)",
    )
    axis.set_title(title)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    starts = [curve.values[0].mean for curve in curves if 0 < curve.values[0].mean < math.inf]
    if starts:
        _log_scale(axis)
        axis.set_ylim(top=min(axis.get_ylim()[1], 30 * max(starts)))
    axis.legend()
    return figure


def growth_figure(points: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> Figure:
    """Milliseconds an outer step against what grows, a panel each; dotted, what grows with the arithmetic."""
    figure = Figure(figsize=(3.1 * len(points) + 0.6, 3.2), layout="constrained")
    for axis, (name, engines) in zip(figure.subplots(1, len(points), squeeze=False)[0], points.items(), strict=True):
        for (engine, values), color, marker in zip(engines.items(), (GREY, ORANGE, BLUE), "so^", strict=False):
            axis.plot(*zip(*values, strict=True), marker=marker, ms=4, color=color, label=engine)
        (start, least), *_, (end, _) = min(engines.values(), key=lambda values: values[0][1])
        power = 2 if name.startswith("width") else 1
        axis.plot([start, end], [least, least * (end / start) ** power], ":", color=BLACK, lw=1, label="arithmetic")
        axis.set(xscale="log", xlabel=name)
        ticks = sorted({value for values in engines.values() for value, _ in values})
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axis.xaxis.set_minor_formatter(NullFormatter())
        _log_scale(axis)
    figure.axes[0].set_ylabel("milliseconds an outer step")
    figure.axes[0].legend()
    return figure


def alpha_figure(trace: Mapping[str, Sequence[tuple[int, Sequence[float]]]], *, title: str) -> Figure:
    """Alpha over outer steps: a panel for each alpha, a line for each inner step that has its own."""
    columns = min(len(trace), COLUMNS)
    rows = math.ceil(len(trace) / columns)
    figure = Figure(figsize=(3.1 * columns + 1.2, 2.2 * rows + 1.0), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axis, (name, points) in zip(axes.flat, trace.items(), strict=False):
        last = len(points[0][1])
        for index in range(last):
            steps, values = [step for step, _ in points], [found[index] for _, found in points]
            style = _step_style(index + 1, last) if last > 1 else {"color": BLUE, "lw": 1.6}
            axis.plot(steps, values, label=f"inner step {index + 1}", **style)
        axis.set_title(name)
        axis.axhline(0, color=GREY, lw=0.5)
    for axis in axes.flat[len(trace) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("outer steps")
    for axis in axes[:, 0]:
        axis.set_ylabel("alpha")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))
    figure.suptitle(title, fontsize=10)
    return figure


def _mean_of_runs(axis: Axes, points: Sequence[tuple[int, Sequence[float]]], dash: str, **style: Any) -> None:
    """A line of the means over runs, and a band of their 95 % intervals where there are several."""
    steps, going = [step for step, _ in points], [[v for v in values if v == v] for _, values in points]
    means = [_or_nan(mean(values)) if values else math.nan for values in going]
    axis.plot(steps, means, dash, **style)
    if any(len(values) > 1 for values in going):
        widths = [_or_nan(t_interval(values)) if len(values) > 1 else 0.0 for values in going]
        low = [max(mean - width, mean / 100) for mean, width in zip(means, widths, strict=True)]
        high = [mean + width for mean, width in zip(means, widths, strict=True)]
        axis.fill_between(steps, low, high, color=style["color"], alpha=0.2, lw=0)


def _errors_by_step(axis: Axes, values: Sequence[Statistic], *, color: str, dash: str, marker: str, label: str) -> None:
    means = [_or_nan(value.mean) for value in values]
    low = [max(value.mean - value.ci95, value.mean / 100) for value in values]
    high = [value.mean + value.ci95 for value in values]
    every = max(1, len(means) // 20)
    axis.plot(range(len(means)), means, dash, color=color, marker=marker, markevery=every, ms=4, lw=1.6, label=label)
    axis.fill_between(
        range(len(means)), [_or_nan(v) for v in low], [_or_nan(v) for v in high], color=color, alpha=0.2, lw=0
    )


def _grid(errors: PointErrors, measure: str) -> Statistic:
    found: Statistic = getattr(errors.grid, measure)
    return found


def _grids(steps: Sequence[PointErrors], measure: str) -> list[Statistic]:
    return [_grid(errors, measure) for errors in steps]


def _log_scale(axis: Axes) -> None:
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _step_label(step: int) -> str:
    return "before adapting" if step == 0 else f"after {step} step{'s' if step > 1 else ''}"


def _step_style(step: int, last: int) -> dict[str, Any]:
    if step == 0:
        return {"color": GREY, "ls": "--", "lw": 1.2}
    if step == last:
        return {"color": BLUE, "lw": 1.8}
    shade = matplotlib.colormaps["cividis_r"](0.1 + 0.5 * step / last)
    return {"color": shade, "lw": 1.0}


def _short(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "inf"


def _or_nan(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else math.nan
