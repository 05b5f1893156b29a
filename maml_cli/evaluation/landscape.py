"""Errors over the parameters of the tasks: means of test tasks in the cells of two parameters."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_cli.errors import ConfigError
from maml_cli.evaluation.held_out import Protocol
from maml_cli.evaluation.task_rows import TaskErrors
from maml_cli.evaluation.trained_run import TrainedRun, held_out_tasks
from maml_cli.tasks import KIND

TASKS_PER_CELL = 25
"""Mean number of test tasks in a cell, which is as small as that allows."""
FEWEST_CELLS, MOST_CELLS = 2, 24
"""Cells along one parameter."""
PREFERRED = (("amplitude", "frequency"), ("amplitude", "phase"))
"""Pairs of parameters to choose first, where both vary."""


class Landscape(NamedTuple):
    """Mean errors of test tasks by two of their parameters.

    x_name, y_name: the parameters.
    x_edges, y_edges: ends of the cells, (N + 1,), from the least to the greatest value of a test task.
    errors: mean error of the test tasks in each cell, (N, N), rows by `y`; NaN in cells without tasks.
    """

    x_name: str
    y_name: str
    x_edges: Tensor
    y_edges: Tensor
    errors: Tensor


def landscape_parameters(run: TrainedRun, protocol: Protocol) -> tuple[str, str]:
    """The two parameters of the landscape of a run: amplitude and frequency, or amplitude and phase where the frequency
    is fixed, or the first two that vary; raises ConfigError, with the reason, where there are none."""
    (tasks, *_) = held_out_tasks(run, protocol._replace(num_tasks=2))
    columns: dict[str, list[Any]] = next(tasks.iter_blocks()).functions.columns()
    subject = f"--kind landscape: {run.checkpoint.label}"
    if KIND in columns:
        raise ConfigError(f"{subject}: a mixture of families, which share no parameters; give --kind tail")
    numbers = {name: values for name, values in columns.items() if isinstance(values[0], float)}
    if not numbers:
        raise ConfigError(f"{subject}: curves of a table, which have no parameters; give --kind tail")
    varying = [name for name, values in numbers.items() if len({*values}) > 1]
    if len(varying) < 2:
        raise ConfigError(f"{subject}: fewer than two parameters of its tasks vary; give --kind tail")
    return next((pair for pair in PREFERRED if {*pair} <= {*varying}), (varying[0], varying[1]))


def landscape(task_errors: TaskErrors, names: tuple[str, str], *, step: int) -> Landscape:
    """The mean error after inner step `step` in cells of the parameters `names`, all equally large."""
    columns: dict[str, list[float]] = {name: [] for name in names}
    for block in task_errors.test_tasks.iter_blocks():
        values = block.functions.columns()
        for name, column in columns.items():
            column.extend(values[name])
    errors = task_errors.errors[step].double().nan_to_num(nan=math.inf)
    num_cells = min(max(round(math.sqrt(len(errors) / TASKS_PER_CELL)), FEWEST_CELLS), MOST_CELLS)
    (x_edges, x_cells), (y_edges, y_cells) = (_cells(torch.tensor(columns[name]), num_cells) for name in names)
    index = y_cells * num_cells + x_cells
    sums = torch.zeros(num_cells**2, dtype=torch.float64).index_add(0, index, errors)
    counts = torch.bincount(index, minlength=num_cells**2)
    return Landscape(*names, x_edges, y_edges, (sums / counts).reshape(num_cells, num_cells))


def _cells(values: Tensor, num_cells: int) -> tuple[Tensor, Tensor]:
    """The ends of `num_cells` cells (N + 1,) over the range of `values` (B,), and the cell of each value, (B,)."""
    values = values.double()
    edges = torch.linspace(values.min().item(), values.max().item(), num_cells + 1, dtype=torch.float64)
    return edges, torch.bucketize(values, edges[1:-1], right=True)
