"""Figures of a sweep: the error against each key that varies, and parallel coordinates."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from maml_cli.reporting.canvas import (
    BLUE,
    GREY,
    ORANGE,
    PALE_GREY,
    PURPLE,
    Axes,
    Figure,
    NullLocator,
    drawable,
    label_text,
    legend_below,
    line_styles,
    log_axis,
    new_figure,
    save_figure,
)
from maml_cli.reporting.format import format_short, plural
from maml_cli.reporting.sweep_tables import short_keys, short_value, value_cell
from maml_cli.runs import make_folder
from maml_cli.sweeps import Sweep, TrialRow

COLUMNS = 3
MAX_LINES = 6
"""Lines of a panel with names in its legend; more of them are grey and have none."""
MAX_TICKS = 7
MAX_LABEL = 28
LOG_SPREAD = 8.0
"""Ratio of the largest to the smallest positive value from which an axis is logarithmic."""


class Scale(NamedTuple):
    """The axis of a key.

    positions: the position of each value by its text.
    is_log: whether positions are the logarithms of numbers.
    is_numeric: whether the values are numbers, and not words or lists, which stand side by side.
    """

    positions: Mapping[str, float]
    is_log: bool = False
    is_numeric: bool = True

    def ticks(self) -> dict[float, str]:
        """Positions that are labelled: every value, of many numbers the ends and three between them."""
        if len(self.positions) <= MAX_TICKS or not self.is_numeric:
            return {at: label_text(short_value(text), MAX_LABEL) for text, at in self.positions.items()}
        low, high = min(self.positions.values()), max(self.positions.values())
        places = [low + (high - low) * part / 4 for part in range(5)]
        return {at: format_short(10**at if self.is_log else at) for at in places}


def scale_of(values: Mapping[str, object]) -> Scale:
    """The axis of a key from its values by text: positions of numbers are these or, widely spread, their logarithms."""
    numbers = [value for value in values.values() if type(value) in (int, float)]
    if len(numbers) < len(values):
        return Scale({text: float(index) for index, text in enumerate(values)}, is_numeric=False)
    floats = {text: float(str(value)) for text, value in values.items()}
    ordered = sorted(floats, key=lambda text: floats[text])
    low, high = floats[ordered[0]], floats[ordered[-1]]
    is_log = low > 0 and high >= LOG_SPREAD * low
    return Scale({text: math.log10(floats[text]) if is_log else floats[text] for text in ordered}, is_log)


def draw_sweep(sweep: Sweep, rows: Sequence[TrialRow], file: Path) -> list[Path]:
    """Draw the errors against each key to `file`, and with two keys or more parallel coordinates beside it."""
    make_folder(file.parent)
    drawn = [row for row in rows if row.error is not None]
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
        scale = scale_of(_values(rows, key))
        if sweep.space.is_grid:
            _plot_lines(axis, rows, key, keys, scale)
        _plot_points(axis, rows, key, scale, joined=sweep.space.is_grid)
        _label_axis(axis, key, scale)
    for axis in axes.flat[len(keys) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel(f"{measure} (log scale)")
    log_axis(axes.flat[0])
    legend_below(figure, axes.flat[0], columns=4)
    figure.suptitle(_title(sweep, rows))
    return figure


def parallel_figure(sweep: Sweep, rows: Sequence[TrialRow]) -> Figure:
    """Parallel coordinates: a vertical axis for each key and one for the error, and a line for each trial.

    Lines are the bluer the smaller the error; the best trial is drawn on top, pruned trials are dashed.
    """
    keys = [at.key for at in sweep.space.dimensions]
    finite = [row for row in rows if row.error is not None and math.isfinite(row.error)]
    errors = {format_short(row.error or 0.0): row.error for row in finite}
    scales = [scale_of(_values(finite, key)) for key in keys] + [scale_of(errors)]
    figure = new_figure(max(5.6, 1.9 * len(scales)), 3.9)
    axis = figure.subplots()
    shade = {row.number: index / max(1, len(finite) - 1) for index, row in enumerate(finite)}
    for row in reversed(finite):
        texts = [*(value_cell(row, key) for key in keys), format_short(row.error or 0.0)]
        heights = [_height(scale, text) for scale, text in zip(scales, texts, strict=True)]
        is_best, is_pruned = row is finite[0] and row.is_ranked, row.state == "pruned"
        style = {"color": BLUE, "lw": 1.3, "alpha": 1.0 - 0.75 * shade[row.number]}
        style = {"color": GREY, "lw": 0.9, "ls": "--", "alpha": 0.6} if is_pruned else style
        style = {"color": ORANGE, "lw": 2.4} if is_best else style
        axis.plot(range(len(scales)), heights, **style)
    for index, scale in enumerate(scales):
        axis.axvline(index, color=PALE_GREY, lw=0.8, zorder=0)
        for at, text in _spread(scale.ticks()).items():
            height = _normalised(scale, at)
            axis.text(index + 0.03, height, text, fontsize="small", va="center", ha="left")
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


def _values(rows: Sequence[TrialRow], key: str) -> dict[str, object]:
    """The values of `key` by their text, in the order of their first trial."""
    by_number = sorted(rows, key=lambda row: row.number)
    return {value_cell(row, key): row.values[key] for row in by_number if key in row.values}


def _plot_lines(axis: Axes, rows: Sequence[TrialRow], key: str, keys: Sequence[str], scale: Scale) -> None:
    """A line through the trials that have the same values of all other keys."""
    others = [other for other in keys if other != key]
    groups: dict[str, list[TrialRow]] = {}
    for row in sorted(rows, key=lambda row: row.number):
        name = ", ".join(f"{short}={short_value(value_cell(row, at))}" for short, at in zip(short_keys(others), others, strict=True))
        groups.setdefault(name, []).append(row)
    is_named = 1 < len(groups) <= MAX_LINES
    handles = []
    for (name, members), style in zip(groups.items(), line_styles(), strict=False):
        ordered = sorted(members, key=lambda row: scale.positions[value_cell(row, key)])
        points = [(scale.positions[value_cell(row, key)], _error(row)) for row in ordered]
        look = {"color": style["color"], "ls": style["ls"], "lw": 1.2} if is_named else {"color": PALE_GREY, "lw": 0.9}
        handles += axis.plot(*zip(*points, strict=True), **look, label="_")
        handles[-1].set_gid(name)
    if is_named:
        axis.legend(handles, [label_text(name, MAX_LABEL) for name in groups], fontsize="small", loc="best")


def _plot_points(axis: Axes, rows: Sequence[TrialRow], key: str, scale: Scale, *, joined: bool) -> None:
    """A point for each trial, with its interval over seeds; the best is ringed, diverged ones stand at the top."""
    kinds = {
        "complete": ("Trained to the end", {"color": GREY if joined else BLUE, "marker": "o", "ms": 4}),
        "pruned": ("Pruned", {"color": GREY, "marker": "o", "ms": 4, "mfc": "none"}),
    }
    for state, (label, style) in kinds.items():
        chosen = [row for row in rows if row.state == state and math.isfinite(_error(row))]
        if chosen:
            places = [scale.positions[value_cell(row, key)] for row in chosen]
            errors = [_error(row) for row in chosen]
            has_intervals = any(row.ci95_seeds is not None for row in chosen)
            label = f"{label}, 95 % interval over seeds" if has_intervals and state == "complete" else label
            axis.errorbar(places, errors, yerr=_widths(chosen), ls="none", capsize=2, elinewidth=0.9, label=label, **style)
    best = next((row for row in rows if row.is_ranked), None)
    if best is not None:
        at = scale.positions[value_cell(best, key)]
        axis.plot([at], [_error(best)], "o", ms=9, mfc="none", mec=ORANGE, mew=1.8, label="Best")
    diverged = [scale.positions[value_cell(row, key)] for row in rows if not math.isfinite(row.error or 0.0)]
    if diverged:
        top = [0.98] * len(diverged)
        axis.plot(diverged, top, "x", color=PURPLE, ms=6, transform=axis.get_xaxis_transform(), label="Diverged")


def _widths(rows: Sequence[TrialRow]) -> list[list[float]]:
    """Lengths of the error bars below and above; on a logarithmic axis, none reaches below a hundredth of the error."""
    widths = [row.ci95_seeds or 0.0 for row in rows]
    widths = [width if math.isfinite(width) else 0.0 for width in widths]
    return [[min(width, 0.99 * _error(row)) for row, width in zip(rows, widths, strict=True)], widths]


def _label_axis(axis: Axes, key: str, scale: Scale) -> None:
    ticks = scale.ticks()
    axis.set_xticks(list(ticks), list(ticks.values()), minor=False)
    axis.xaxis.set_minor_locator(NullLocator())
    if max((len(text) for text in ticks.values()), default=0) * len(ticks) > MAX_LABEL:
        axis.tick_params(axis="x", labelrotation=30)
    axis.set_xlabel(f"{label_text(key, MAX_LABEL)}{' (log scale)' if scale.is_log else ''}")
    places = list(scale.positions.values())
    margin = 0.08 * ((max(places) - min(places)) or 1.0)
    axis.set_xlim(min(places) - margin, max(places) + margin)


def _error(row: TrialRow) -> float:
    return drawable(math.nan if row.error is None else row.error)


def _height(scale: Scale, text: str) -> float:
    return _normalised(scale, scale.positions[text])


def _normalised(scale: Scale, at: float) -> float:
    low, high = min(scale.positions.values()), max(scale.positions.values())
    return 0.5 if high == low else (at - low) / (high - low)


def _spread(ticks: Mapping[float, str]) -> dict[float, str]:
    """The ticks whose labels do not overlap on an axis of the height of the figure."""
    places = sorted(ticks)
    gap = 0.05 * ((places[-1] - places[0]) or 1.0)
    chosen = [places[0]]
    for at in places[1:]:
        if at - chosen[-1] >= gap:
            chosen.append(at)
    return {at: ticks[at] for at in chosen}


def _title(sweep: Sweep, rows: Sequence[TrialRow]) -> str:
    seeds = plural(len(sweep.config.seeds), "seed")
    return f"{label_text(sweep.name, 40)}: {plural(len(rows), 'trial')}, {seeds} each"
