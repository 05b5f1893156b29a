"""Results of adapting to points of the user's own: rows of a CSV file, a table, a JSON document and a figure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from maml_cli.adaptation import OwnFit, TableFit, TableSummary, band_over_seeds, own_fits
from maml_cli.documents import adaptations
from maml_cli.errors import printable
from maml_cli.evaluation import TableSession, TrainedRun, range_warnings
from maml_cli.reporting.canvas import (
    BLUE,
    ORANGE,
    Axes,
    Figure,
    drawable,
    label_text,
    new_figure,
    save_figure,
)
from maml_cli.reporting.csv_text import csv_text
from maml_cli.reporting.figure_layout import columns_that_fit
from maml_cli.reporting.figure_request import run_name
from maml_cli.reporting.figure_style import DEFAULT_STYLE, FigureStyle
from maml_cli.reporting.figures import COLUMNS, SUPPORT_STYLE, finish_panels, value_limits
from maml_cli.reporting.format import format_number, format_short, plural
from maml_cli.reporting.step_styles import fit_styles, step_label
from maml_cli.reporting.tables import new_console, new_table
from maml_cli.runs import make_folder

MAX_LABEL = 16
"""Characters of the label of a task above a panel."""


def csv_header(steps: int, *, has_tasks: bool, num_seeds: int, has_std: bool) -> str:
    """The first line of the predictions: task, x, y, y0, y1, ... after the inner steps, the ends of the band over
    seeds, and the standard deviation of new targets."""
    names = [f"y{step}" for step in range(steps + 1)]
    names += [*(["low", "high"] if num_seeds > 1 else []), *(["sd"] if has_std else [])]
    return csv_text([[*(["task"] if has_tasks else []), "x", "y", *names]])


def csv_rows(fit: TableFit, *, has_tasks: bool) -> str:
    """A line for each prediction of `fit`; `y` is empty where the target is not known. Predictions have nine digits."""
    inputs, predictions = fit.inputs, fit.predictions
    columns: list[Sequence[object]] = []
    if has_tasks:
        columns.append([fit.table.labels[task] for task in inputs.task.tolist()])
    columns.append(inputs.x.tolist())
    columns.append(["" if math.isnan(value) else value for value in inputs.y.tolist()])
    columns += [_formatted(step.tolist()) for step in predictions.mean(dim=1)]
    if predictions.shape[1] > 1:
        columns += [_formatted(end.tolist()) for end in band_over_seeds(predictions[-1])]
    if fit.std is not None:
        columns.append(_formatted(fit.std.tolist()))
    return csv_text(zip(*columns, strict=True))


def print_adapted(
    summary: TableSummary, *, title: str, trained_steps: int, notes: Sequence[str], to_stderr: bool
) -> None:
    """Print the errors after each inner step, means over tasks."""
    console = new_console(to_stderr=to_stderr)
    points = [plural(summary.num_tasks, "task"), plural(summary.num_support, "support point")]
    points += [plural(summary.num_query, "query point")] if summary.num_query else []
    console.print(f"\n{printable(title)}")
    console.print(
        f"adapted to {', '.join(points)}; mean squared error" + (", mean over tasks" if summary.num_tasks > 1 else "")
    )
    for note in notes:
        console.print(printable(note))
    query = summary.query_errors
    table = new_table("step", "support points", *(["query points"] if query else []))
    for step, error in enumerate(summary.support_errors):
        cells = [format_number(error), *([format_number(query[step])] if query else [])]
        table.add_row(f"{step}{'*' if step == trained_steps else ' '}", *cells)
    console.print(table)
    if len(summary.support_errors) > trained_steps:
        console.print("* the trained number of inner steps")


def adapted_document(
    run: TrainedRun,
    session: TableSession,
    summary: TableSummary,
    predictions: Sequence[Mapping[str, object]],
    *,
    out: Path | None,
    figure: Path | None,
) -> adaptations.AdaptDocument:
    """The document of `maml adapt --json`; predictions are null where they are in the file `out`."""
    return adaptations.AdaptDocument(
        checkpoint=str(run.checkpoint.file),
        step=run.checkpoint.step,
        seeds=[*run.run_index],
        trained_steps=run.config.inner.steps,
        num_tasks=summary.num_tasks,
        num_support=summary.num_support,
        num_query=summary.num_query,
        scaling=adaptations.Scaling(**session.learner.scaling._asdict()),
        warnings=[*session.messages, *range_warnings(session, summary)],
        support_mse=[*summary.support_errors],
        query_mse=None if summary.query_errors is None else [*summary.query_errors],
        out=str(out) if out else None,
        figure=str(figure) if figure else None,
        predictions=None if out else [adaptations.Prediction.model_validate(row) for row in predictions],
    )


def draw_own_fits(
    run: TrainedRun,
    session: TableSession,
    fit: TableFit,
    file: Path,
    *,
    most: int,
    style: FigureStyle = DEFAULT_STYLE,
) -> None:
    """Draw the first tasks of `fit`, at most `most`, to `file`; raises OSError."""
    fits = own_fits(session.learner, fit, steps=session.steps, most=most)
    title = f"{run_name(run)}: {plural(session.steps, 'inner step')} on points of your own"
    make_folder(file.parent)
    scaling = session.learner.scaling
    usual = [(end - scaling.y_shift) / scaling.y_factor for end in session.learner.experiment.family.y]
    options: dict[str, Any] = {"trained_steps": run.config.inner.steps, "title": title, "usual": usual, "style": style}
    save_figure(lambda: own_fit_figure(fits, **options), file, style)


def own_fit_figure(
    fits: Sequence[OwnFit],
    *,
    trained_steps: int,
    title: str,
    usual: Sequence[float] = (),
    style: FigureStyle = DEFAULT_STYLE,
) -> Figure:
    """Small multiples, one task of the user's own each: points, and predictions before adapting, after the trained
    number of inner steps and after all of them. The title of a panel is the error on the support points.

    usual: values of y that training had, in the units of the points; see `value_limits`.
    """
    columns = min(len(fits), columns_that_fit(style, COLUMNS))
    rows = math.ceil(len(fits) / columns)
    figure = new_figure(*((3.1 * columns, 2.3 * rows + 1.0) if len(fits) > 1 else (6.4, 4.8)), style)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axis, fit in zip(axes.flat, fits, strict=False):
        _draw_fit(axis, fit, trained_steps, usual)
    return finish_panels(figure, axes, num_panels=len(fits), title=title)


def _draw_fit(axis: Axes, fit: OwnFit, trained_steps: int, usual: Sequence[float]) -> None:
    steps = len(fit.predictions) - 1
    drawn: list[float] = []
    if fit.band is not None:
        low, high = ([*map(drawable, end)] for end in fit.band)
        axis.fill_between(fit.x, low, high, color=BLUE, alpha=0.2, lw=0, label=fit.band_name)
        drawn += [*low, *high]
    for step, line in fit_styles(sorted({0, min(trained_steps, steps), steps}), trained_steps):
        predictions = [*map(drawable, fit.predictions[step])]
        axis.plot(fit.x, predictions, label=step_label(step, trained_steps), **line)
        drawn += predictions
    if fit.query_x:
        axis.plot(fit.query_x, fit.query_y, "x", color=ORANGE, ms=5, zorder=4, label="Query points")
    axis.plot(fit.support_x, fit.support_y, "o", label="Support points", **SUPPORT_STYLE)
    before, after = map(format_short, fit.errors)
    task = f"{label_text(fit.label, MAX_LABEL)}: " if fit.label else ""
    axis.set_title(f"{task}MSE {before} → {after}")
    axis.set_ylim(*value_limits([*fit.support_y, *fit.query_y], drawn, usual))


def iter_predictions(fit: TableFit) -> Iterator[dict[str, object]]:
    """A dictionary for each prediction of `fit`: task, x, y, the predictions after each inner step, the band, and
    the standard deviation."""
    inputs = fit.inputs
    means = fit.predictions.mean(dim=1).T.tolist()
    bands = (
        zip(*(end.tolist() for end in band_over_seeds(fit.predictions[-1])), strict=True)
        if fit.predictions.shape[1] > 1
        else None
    )
    stds = None if fit.std is None else iter(fit.std.tolist())
    for task, x, y, steps in zip(inputs.task.tolist(), inputs.x.tolist(), inputs.y.tolist(), means, strict=True):
        record = {"task": fit.table.labels[task], "x": x, "y": y, "predictions": steps}
        yield record | ({"band": list(next(bands))} if bands else {}) | ({"sd": next(stds)} if stds else {})


def _formatted(values: Sequence[float]) -> list[str]:
    return [f"{value:.9g}" for value in values]
