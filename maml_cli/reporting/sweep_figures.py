"""Figures of a sweep: the error against each key that varies, and parallel coordinates."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maml_cli.reporting.axes import log_axis
from maml_cli.reporting.canvas import (
    BACKGROUND,
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    PALE_GREY,
    PURPLE,
    Axes,
    Figure,
    drawable,
    label_text,
    legend_below,
    line_styles,
    new_figure,
    save_figure,
)
from maml_cli.reporting.format import format_short, plural
from maml_cli.reporting.matplotlib_import import NullLocator
from maml_cli.reporting.sweep_scales import MAX_LABEL, Scale, scale_of, values_of
from maml_cli.reporting.sweep_tables import includes_zero, short_keys, short_value, value_cell
from maml_cli.runs import make_folder
from maml_cli.sweeps import Sweep, TrialRow

COLUMNS = 3
MAX_LINES = 6
"""Lines of a panel with names in its legend; more of them are grey and have none."""
DODGE = 0.012
"""Distance of neighbouring lines of a panel, as a fraction of its width, so that their intervals can be told apart."""


def draw_sweep(sweep: Sweep, rows: Sequence[TrialRow], file: Path) -> list[Path]:
    """Draw the errors against each key to `file`, and with two keys or more parallel coordinates beside it.

    Returns the files; none if no trial has an error yet.
    """
    drawn = [row for row in rows if row.error is not None]
    if not drawn:
        return []
    make_folder(file.parent)
    keys = [at.key for at in sweep.space.dimensions]
    files = [save_figure(lambda: errors_figure(sweep, drawn), file)]
    if len(keys) > 1 and any(math.isfinite(row.error or 0.0) for row in drawn):
        parallel = file.with_stem(f"{file.stem}-parallel")
        files.append(save_figure(lambda: parallel_figure(sweep, drawn), parallel))
    return files


def errors_figure(sweep: Sweep, rows: Sequence[TrialRow]) -> Figure:
    """A panel for each key: the error of every trial against its value, with 95 % intervals over seeds.

    Trials of a grid that differ in this key alone are joined by a line.
    """
    keys = [at.key for at in sweep.space.dimensions]
    columns = min(len(keys), COLUMNS)
    num_rows = math.ceil(len(keys) / columns)
    figure = new_figure(max(5.6, 3.6 * columns + 0.4), 3.1 * num_rows + 0.9)
    axes = figure.subplots(num_rows, columns, sharey=True, squeeze=False)
    measure = f"Validation {sweep.config.measure.upper()}"
    for axis, key in zip(axes.flat, keys, strict=False):
        scale = scale_of(values_of(rows, key))
        if sweep.space.is_grid:
            _plot_grid(axis, rows, key, keys, scale)
        else:
            _plot_samples(axis, rows, key, scale)
        _plot_diverged(axis, rows, key, scale)
        _label_axis(axis, key, scale)
    for axis in axes.flat[len(keys) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel(f"{measure} (log scale)")
    log_axis(axes.flat[0])
    _explain_marks(figure, rows)
    figure.suptitle(_title(sweep, rows))
    return figure


def parallel_figure(sweep: Sweep, rows: Sequence[TrialRow]) -> Figure:
    """Parallel coordinates: a vertical axis for each key and one for the error, and a line for each trial.

    Lines are the bluer the smaller the error; the best trial is drawn on top, pruned trials are dashed.
    """
    keys = [at.key for at in sweep.space.dimensions]
    finite = [row for row in rows if row.error is not None and math.isfinite(row.error)]
    errors = {format_short(row.error or 0.0): row.error for row in finite}
    scales = [scale_of(values_of(finite, key)) for key in keys] + [scale_of(errors)]
    figure = new_figure(max(5.6, 1.9 * len(scales)), 3.9)
    axis = figure.subplots()
    shade = {row.number: index / max(1, len(finite) - 1) for index, row in enumerate(finite)}
    for row in reversed(finite):
        texts = [*(value_cell(row, key) for key in keys), format_short(row.error or 0.0)]
        heights = [scale.height(text) for scale, text in zip(scales, texts, strict=True)]
        is_best, is_pruned = row is finite[0] and row.is_ranked, row.state == "pruned"
        style: dict[str, Any] = {"color": BLUE, "lw": 1.3, "alpha": 1.0 - 0.75 * shade[row.number]}
        style = {"color": GREY, "lw": 0.9, "ls": "--", "alpha": 0.6} if is_pruned else style
        style = {"color": ORANGE, "lw": 2.4} if is_best else style
        axis.plot(range(len(scales)), heights, **style)
    for index, scale in enumerate(scales):
        axis.axvline(index, color=PALE_GREY, lw=0.8, zorder=0)
        for at, text in scale.spread_ticks().items():
            box = {"facecolor": BACKGROUND, "edgecolor": "none", "pad": 1.0}
            axis.text(
                index + 0.03, scale.fraction(at), text, fontsize="small", va="center", ha="left", bbox=box, zorder=5
            )
    names = [*short_keys(keys), f"Validation {sweep.config.measure.upper()}"]
    axis.set_xticks(range(len(scales)), [label_text(name, MAX_LABEL) for name in names])
    axis.set_xlim(-0.1, len(scales) - 1 + 0.35)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.spines["bottom"].set_visible(False)
    axis.plot([], [], color=ORANGE, lw=2.4, label="Best trial")
    axis.plot([], [], color=BLUE, lw=1.3, label="Others, the paler the worse")
    if any(row.state == "pruned" for row in finite):
        axis.plot([], [], color=GREY, lw=0.9, ls="--", label="Pruned, error when it was stopped")
    legend_below(figure, axis, columns=3)
    figure.suptitle(_title(sweep, rows))
    return figure


def _explain_marks(figure: Figure, rows: Sequence[TrialRow]) -> None:
    """A legend below the figure of the marks that its panels share."""
    reaches_zero = any(includes_zero(row) for row in rows)
    marks: dict[str, tuple[bool, dict[str, Any]]] = {
        "Best": (any(row.is_ranked for row in rows), {"marker": "o", "ms": 9, "mfc": "none", "mec": BLACK, "mew": 1.4}),
        "Pruned, error when it was stopped": (
            any(row.state == "pruned" for row in rows),
            {"marker": "o", "ms": 4, "mfc": "none", "color": GREY},
        ),
        "Diverged": (any(row.state == "diverged" for row in rows), {"marker": "x", "ms": 6, "color": PURPLE}),
        f"95 % interval of the mean over seeds{'; at the bottom edge it includes 0' if reaches_zero else ''}": (
            any(row.ci95_seeds for row in rows),
            {"marker": "|", "ms": 9, "color": GREY},
        ),
    }
    handles = [(label, style) for label, (is_used, style) in marks.items() if is_used]
    hidden = figure.axes[0].twinx()
    hidden.set_axis_off()
    for label, style in handles:
        hidden.plot([], [], ls="none", label=label, **style)
    if handles:
        legend_below(figure, hidden, columns=4)


def _plot_grid(axis: Axes, rows: Sequence[TrialRow], key: str, keys: Sequence[str], scale: Scale) -> None:
    """A line through the trials that have the same values of all other keys, one beside the other."""
    others = [other for other in keys if other != key]
    groups: dict[str, list[TrialRow]] = {}
    for row in sorted(rows, key=lambda row: row.number):
        pairs = zip(short_keys(others), others, strict=True)
        name = ", ".join(f"{short}={short_value(value_cell(row, at))}" for short, at in pairs)
        groups.setdefault(name, []).append(row)
    is_named = 1 < len(groups) <= MAX_LINES
    for index, ((name, members), style) in enumerate(zip(groups.items(), line_styles(), strict=False)):
        offset = DODGE * scale.span * (index - (len(groups) - 1) / 2) if is_named else 0.0
        ordered = sorted(members, key=lambda row: scale.positions[value_cell(row, key)])
        look = style if is_named else {"color": BLUE if len(groups) == 1 else GREY, "ls": "-", "marker": "o"}
        _plot_errors(axis, ordered, key, scale, offset=offset, lw=1.1, label=name if is_named else "_", **look)
        _ring_best(axis, rows, members, key, scale, offset)
    if is_named:
        axis.legend(fontsize="small", loc="best")


def _plot_samples(axis: Axes, rows: Sequence[TrialRow], key: str, scale: Scale) -> None:
    """A point for each trial that a sampler chose; those that were pruned are hollow."""
    for state, colour, face in (("pruned", GREY, "none"), ("complete", BLUE, BLUE)):
        chosen = [row for row in rows if row.state == state]
        label = {"pruned": "Pruned", "complete": "Trained to the end"}[state]
        _plot_errors(axis, chosen, key, scale, ls="none", marker="o", color=colour, mfc=face, label=label)
    _ring_best(axis, rows, rows, key, scale, 0.0)


def _plot_errors(
    axis: Axes, rows: Sequence[TrialRow], key: str, scale: Scale, *, offset: float = 0.0, **style: Any
) -> None:
    """The errors of trials that did not diverge, with their intervals over seeds if they have any."""
    finite = [row for row in rows if math.isfinite(_error(row))]
    if not finite:
        return
    places = [scale.positions[value_cell(row, key)] + offset for row in finite]
    widths = _widths(finite) if any(row.ci95_seeds for row in finite) else None
    axis.errorbar(places, [*map(_error, finite)], yerr=widths, ms=4, capsize=2, elinewidth=0.9, **style)


def _ring_best(
    axis: Axes, rows: Sequence[TrialRow], members: Sequence[TrialRow], key: str, scale: Scale, offset: float
) -> None:
    best = next((row for row in rows if row.is_ranked), None)
    if best is not None and best in members:
        at = scale.positions[value_cell(best, key)] + offset
        axis.plot([at], [_error(best)], "o", ms=9, mfc="none", mec=BLACK, mew=1.4, label="_")


def _plot_diverged(axis: Axes, rows: Sequence[TrialRow], key: str, scale: Scale) -> None:
    """A cross at the top of the axis for each trial of which a seed diverged."""
    places = [scale.positions[value_cell(row, key)] for row in rows if row.state == "diverged"]
    if places:
        axis.plot(places, [0.98] * len(places), "x", color=PURPLE, ms=6, transform=axis.get_xaxis_transform())


def _widths(rows: Sequence[TrialRow]) -> list[list[float]]:
    """Lengths of the error bars below and above. An interval that includes 0 ends there: on a logarithmic axis its bar
    leaves the panel at the bottom, without a cap."""
    widths = [row.ci95_seeds or 0.0 for row in rows]
    widths = [width if math.isfinite(width) else 0.0 for width in widths]
    return [[min(width, _error(row)) for row, width in zip(rows, widths, strict=True)], widths]


def _label_axis(axis: Axes, key: str, scale: Scale) -> None:
    ticks = scale.ticks()
    axis.set_xticks(list(ticks), list(ticks.values()), minor=False)
    axis.xaxis.set_minor_locator(NullLocator())
    if max((len(text) for text in ticks.values()), default=0) * len(ticks) > MAX_LABEL:
        axis.tick_params(axis="x", labelrotation=30)
    axis.set_xlabel(f"{label_text(key, MAX_LABEL)}{' (log scale)' if scale.is_log else ''}")
    places = list(scale.positions.values())
    margin = 0.08 * scale.span
    axis.set_xlim(min(places) - margin, max(places) + margin)


def _error(row: TrialRow) -> float:
    return drawable(math.nan if row.error is None else row.error)


def _title(sweep: Sweep, rows: Sequence[TrialRow]) -> str:
    seeds = plural(len(sweep.config.seeds), "seed")
    return f"{label_text(sweep.name, 40)}: {plural(len(rows), 'trial')}, {seeds} each"
