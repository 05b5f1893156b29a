"""A learner adapted to the tasks of a table: errors on its points, and predictions at these or at other inputs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.adaptation.arrays import Arrays
from maml_cli.adaptation.fitted import MAX_POINTS, Fitted, Learner
from maml_cli.core import tensors
from maml_cli.errors import DataError, shorten
from maml_cli.tables import BLOCK_ROWS, PointTable, TableReader
from maml_cli.tasks import Range

MAX_PREDICTIONS = 1_000_000
"""Predictions, of all seeds and inner steps, that are computed at a time: 8 MB, and some 60 MB as text."""


class Inputs(NamedTuple):
    """Inputs at which the tasks of a table are predicted, task by task.

    task: index of the task of each, (N,).
    x: inputs, (N,).
    y: targets, (N,); NaN where they are not known.
    is_query: whether the point counts for the query error, (N,).
    """

    task: Tensor
    x: Tensor
    y: Tensor
    is_query: Tensor


class TableFit(NamedTuple):
    """The predictions for some tasks of a table.

    table: the points of these tasks.
    inputs: the inputs of the predictions.
    predictions: after 0, 1, ..., S inner steps, of each seed, (S + 1, R, N).
    support_errors: mean squared error of each task on its support points, of the mean over seeds, (S + 1, B).
    query_errors: the same on its query points, for the tasks that have any, (S + 1, <= B).
    std: standard deviation of new targets after the last inner step, (N,); None without predictive distribution.
    """

    table: PointTable
    inputs: Inputs
    predictions: Tensor
    support_errors: Tensor
    query_errors: Tensor
    std: Tensor | None = None


class Grid(NamedTuple):
    """Inputs other than the points of a table.

    x, y: inputs and targets, (N,); NaN for targets that are not known.
    rows: label of a task -> its indices; None for inputs that all tasks share.
    """

    x: Tensor
    y: Tensor
    rows: dict[str, Tensor] | None = None

    def sizes(self, labels: Sequence[str]) -> Tensor:
        """The number of inputs of each of these tasks."""
        if self.rows is None:
            return torch.full((len(labels),), len(self.x))
        return torch.tensor([len(self.rows.get(label, ())) for label in labels])

    def of_tasks(self, labels: Sequence[str]) -> Inputs:
        """The inputs of these tasks; none for a task that has none."""
        task = torch.arange(len(labels)).repeat_interleave(self.sizes(labels))
        if self.rows is None:
            x, y = (values.repeat(len(labels)) for values in (self.x, self.y))
        else:
            rows = torch.cat([self.rows[label] for label in labels if label in self.rows] or [task])
            x, y = self.x[rows], self.y[rows]
        return Inputs(task, x, y, ~y.isnan())


def equally_spaced(low: float, high: float, count: int) -> Grid:
    """`count` inputs from `low` to `high`, which all tasks share."""
    x = torch.linspace(low, high, count, dtype=torch.float64)
    return Grid(x, torch.full_like(x, math.nan))


def read_grid(reader: TableReader) -> Grid:
    """The inputs in a table, with their targets where it has them; raises DataError for more than one block of rows."""
    table = next(reader.tables)
    if further := next(reader.tables, None):
        line = int(further.lines[0])
        raise DataError(f"{table.source}:{line}: more than {BLOCK_ROWS:,} rows; predict fewer inputs at a time")
    if not reader.has_tasks:
        return Grid(table.x, table.y)
    rows = torch.split(torch.arange(len(table.x)), table.task.bincount().tolist())
    return Grid(table.x, table.y, dict(zip(table.labels, rows, strict=True)))


def iter_fits(
    learner: Learner, tables: Iterator[PointTable], *, steps: int, grid: Grid | None = None
) -> Iterator[TableFit]:
    """The fits of the tasks of `tables`, some at a time, with predictions at `grid`, or at their own points for None.

    Raises DataError, with the line, for a task that no learner can adapt to.
    """
    num_runs = len(tensors(learner.meta_params)[0])
    for table in tables:
        check_table(table)
        sizes = table.task.bincount() + (grid.sizes(table.labels) if grid else 0)
        numbers = (sizes * num_runs * (steps + 1)).cumsum(0)
        start = 0
        while start < len(table.labels):
            done = int(numbers[start - 1]) if start else 0
            stop = max(start + 1, int(torch.searchsorted(numbers, done + MAX_PREDICTIONS)))
            yield fit_table(learner, table.tasks(start, stop), steps=steps, grid=grid)
            start = stop


def fit_table(learner: Learner, table: PointTable, *, steps: int, grid: Grid | None = None) -> TableFit:
    """The fit of all tasks of `table` at once."""
    own, num_tasks = Inputs(table.task, table.x, table.y, table.is_query), len(table.labels)
    groups = [own] if grid is None else [own, grid.of_tasks(table.labels)]
    task, x = (torch.cat([getattr(group, name) for group in groups]) for name in ("task", "x"))
    order = task.argsort(stable=True)
    outputs = fitted_to(learner, table, steps=steps).outputs(_arrays(task[order], x[order], num_tasks))
    std, as_given, num_inputs = outputs.std(), order.argsort(), [len(group.x) for group in groups]
    parts = torch.split(outputs.predictions[..., as_given], num_inputs, dim=-1)
    query_errors = [_errors(group, part, group.is_query, num_tasks) for group, part in zip(groups, parts, strict=True)]
    support_errors = _errors(own, parts[0], ~own.is_query, num_tasks)
    std = None if std is None else torch.split(std[as_given], num_inputs)[-1]
    return TableFit(table, groups[-1], parts[-1], support_errors, torch.cat(query_errors, dim=1), std)


def fitted_to(learner: Learner, table: PointTable, *, steps: int) -> Fitted:
    """The learner adapted to the support points of each task."""
    mask, num_tasks = ~table.is_query, len(table.labels)
    x, y = (_arrays(table.task[mask], values[mask], num_tasks) for values in (table.x, table.y))
    return Fitted(learner, x, y, steps, tuple(table.labels))


def check_table(table: PointTable) -> None:
    """Raises DataError for a task with fewer than two support points or too many, or with two targets for one input."""
    mask = ~table.is_query
    counts = table.task[mask].bincount(minlength=len(table.labels))
    invalid = ((counts < 2) | (counts > MAX_POINTS)).nonzero()
    if len(invalid):
        first = int(invalid[0])
        count = int(counts[first])
        line = int(table.lines[table.task == first][0])
        need = "give two or more" if count < 2 else f"a learner adapts to at most {MAX_POINTS:,}"
        points = "1 support point" if count == 1 else f"{count:,} support points"
        raise DataError(f"{table.source}:{line}: {_name(table.labels[first])} has {points}; {need}")
    order = table.x[mask].argsort(stable=True)
    order = order[table.task[mask][order].argsort(stable=True)]
    task, x, y, lines = (values[mask][order] for values in (table.task, table.x, table.y, table.lines))
    twice = ((task[1:] == task[:-1]) & (x[1:] == x[:-1]) & (y[1:] != y[:-1])).nonzero()
    if len(twice):
        index = int(twice[0])
        targets = [f"{float(y[i]):g} on line {int(lines[i])}" for i in (index, index + 1)]
        raise DataError(
            f"{table.source}:{int(lines[index + 1])}: x = {float(x[index]):g} of "
            f"{_name(table.labels[int(task[index])])} has two targets, {' and '.join(targets)}; give one"
        )


@dataclass
class TableSummary:
    """Sums over the fits of a table, some tasks at a time.

    num_tasks, num_support, num_query: numbers of tasks, support points and query points.
    support_sum, query_sum: sums over tasks of their mean squared errors, after 0, 1, ..., S inner steps.
    num_query_tasks: tasks with query points.
    x_range, y_range: the smallest and largest input, of all points and predictions, and target of a support point.
    """

    num_tasks: int = 0
    num_support: int = 0
    num_query: int = 0
    num_query_tasks: int = 0
    support_sum: list[float] = field(default_factory=list)
    query_sum: list[float] = field(default_factory=list)
    x_range: Range = (math.inf, -math.inf)
    y_range: Range = (math.inf, -math.inf)

    def add(self, fit: TableFit) -> None:
        """Count a fit; mutates the summary."""
        table, support = fit.table, ~fit.table.is_query
        self.num_tasks += len(table.labels)
        self.num_support += int(support.sum())
        self.num_query += int(table.is_query.sum())
        self.num_query_tasks += fit.query_errors.shape[1]
        for sums, errors in ((self.support_sum, fit.support_errors), (self.query_sum, fit.query_errors)):
            totals = errors.sum(dim=1).tolist()
            sums[:] = [a + b for a, b in zip(sums or [0.0] * len(totals), totals, strict=True)]
        self.x_range = _extended(self.x_range, fit.inputs.x)
        self.extend_ranges(table)

    def extend_ranges(self, table: PointTable) -> None:
        """Extend the ranges by the points of a table; mutates the summary."""
        self.x_range = _extended(self.x_range, table.x)
        self.y_range = _extended(self.y_range, table.y[~table.is_query])

    @property
    def support_errors(self) -> list[float]:
        """Mean over tasks of the mean squared error on support points, after 0, 1, ..., S inner steps."""
        return [total / self.num_tasks for total in self.support_sum]

    @property
    def query_errors(self) -> list[float] | None:
        """Mean over tasks of the mean squared error on query points; None without any."""
        return [total / self.num_query_tasks for total in self.query_sum] if self.num_query_tasks else None


def _extended(interval: Range, values: Tensor) -> Range:
    if not len(values):
        return interval
    low, high = values.aminmax()
    return min(interval[0], low.item()), max(interval[1], high.item())


def _arrays(task: Tensor, values: Tensor, num_tasks: int) -> Arrays:
    return Arrays(values, task.bincount(minlength=num_tasks), lambda results: results, True)


def _errors(inputs: Inputs, predictions: Tensor, mask: Tensor, num_tasks: int) -> Tensor:
    """Mean squared error of each task on the points of `mask`, without tasks that have none, (S + 1, <= B)."""
    squared = (predictions[..., mask].mean(dim=1) - inputs.y[mask]).square()
    sums = torch.zeros(len(squared), num_tasks, dtype=squared.dtype).index_add_(1, inputs.task[mask], squared)
    counts = inputs.task[mask].bincount(minlength=num_tasks)
    return (sums / counts)[:, counts > 0]


def _name(label: str) -> str:
    return f'task "{shorten(label, 40)}"' if label else "the table"
