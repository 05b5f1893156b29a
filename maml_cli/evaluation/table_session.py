"""A trained run adapted to a table of the user's own: what `maml adapt` computes, apart from what it prints."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from maml_cli.adaptation import Grid, Learner, TableFit, TableSummary, iter_fits, read_grid
from maml_cli.errors import ConfigError
from maml_cli.evaluation.trained_run import TrainedRun
from maml_cli.tables import Columns, read_table
from maml_cli.tasks import Range, Scaling, affine_map


class TableSession(NamedTuple):
    """A run that is being adapted to a table.

    learner: with the scaling of the data.
    steps: S, the inner steps.
    has_tasks: whether a column has labels of tasks.
    messages: lines about the table, for the user.
    fits: the fits, some tasks at a time; an iterator, which reads the table.
    """

    learner: Learner
    steps: int
    has_tasks: bool
    messages: list[str]
    fits: Iterator[TableFit]


def start_table(
    run: TrainedRun,
    data: Path | None,
    columns: Columns,
    *,
    steps: int | None = None,
    at: Path | None = None,
    grid: Grid | None = None,
    rescale: bool = False,
) -> TableSession:
    """Adapt `run` to the table in `data`, or in standard input for None, with predictions at the inputs in the table
    `at`, or at `grid`, or at the points themselves.

    `rescale`: whether inputs and targets are mapped onto the ranges that the run was trained on, for which the table is
    read twice. Raises ConfigError, FileError, and DataError with the line, also while fits are read.
    """
    learner, num_steps = run.learner, run.resolve_steps(steps, run.config.inner.steps)
    messages = list[str]()
    if at is not None:
        at_reader = read_table(at, columns, needs_y=False)
        messages += _unused(at, at_reader.unused)
        grid = read_grid(at_reader)
    if rescale:
        if data is None:
            raise ConfigError("--rescale: the table is read twice, which standard input cannot be; give a file")
        learner = learner._replace(scaling=_scaling_of(learner, data, columns))
    reader = read_table(data, columns)
    messages += _unused(data, reader.unused)
    if grid is not None and grid.rows is not None and not reader.has_tasks:
        raise ConfigError(f"--at {at}: has a column task, and the data has none; remove it")
    fits = iter_fits(learner, reader.tables, steps=num_steps, grid=grid)
    return TableSession(learner, num_steps, reader.has_tasks, messages, fits)


def summarise_table(session: TableSession, on_fit: Callable[[TableFit, TableSummary], None]) -> TableSummary:
    """The summary of all fits; `on_fit` is called with each fit and the summary up to it."""
    summary = TableSummary()
    for fit in session.fits:
        summary.add(fit)
        on_fit(fit, summary)
    return summary


def range_warnings(session: TableSession, summary: TableSummary) -> list[str]:
    """A line for x and for y if they leave the range that the run was trained on, with the extent."""
    family, scaling = session.learner.experiment.family, session.learner.scaling
    advice = "--rescale maps the data onto it" if scaling == Scaling() else "predictions there are extrapolations"
    x_low, x_high = ((end - scaling.x_shift) / scaling.x_factor for end in family.x)
    y_low, y_high = ((end - scaling.y_shift) / scaling.y_factor for end in family.y)
    warnings = [
        _range_warning("x", summary.x_range, (x_low, x_high), advice),
        _range_warning("y", summary.y_range, (y_low, y_high), advice),
    ]
    return [warning for warning in warnings if warning]


def scaling_note(scaling: Scaling) -> str:
    """The maps of a scaling in words."""
    x, y = (_formula(*pair) for pair in (scaling[:2], scaling[2:]))
    return f"rescaled onto the trained ranges: x to {x.format('x')}, y to {y.format('y')}; undone in all results"


def _formula(factor: float, shift: float) -> str:
    return f"{factor:.6g} * {{}} {'-' if shift < 0 else '+'} {abs(shift):.6g}"


def _range_warning(name: str, values: Range, trained: Range, advice: str) -> str:
    (low, high), (trained_low, trained_high) = values, trained
    excess = max(trained_low - low, high - trained_high)
    width = trained_high - trained_low
    if excess <= 1e-6 * max(width, abs(trained_low), abs(trained_high)):
        return ""
    share = f", {excess / width:.0%} of its width" if width else ""
    return (
        f"{name} from {low:.4g} to {high:.4g} leaves the trained range [{trained_low:g}, {trained_high:g}] by up to "
        f"{excess:.4g}{share}; {advice}"
    )


def _scaling_of(learner: Learner, data: Path, columns: Columns) -> Scaling:
    """The affine maps from the ranges of the points in a table onto those of the family."""
    summary = TableSummary()
    for table in read_table(data, columns).tables:
        summary.extend_ranges(table)
    family = learner.experiment.family
    return Scaling(*affine_map(summary.x_range, family.x), *affine_map(summary.y_range, family.y))


def _unused(file: Path | None, names: Sequence[str]) -> list[str]:
    return [f"{file or 'standard input'}: not used: {', '.join(names)}"] if names else []
