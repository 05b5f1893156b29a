"""Rows of single test tasks: what describes a task, and its error after each inner step."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_cli.evaluation.held_out import TestTasks
from maml_cli.evaluation.statistics import Errors


class TaskErrors(NamedTuple):
    """The error of each test task on the grid.

    test_tasks: the tasks, which are sampled again where their functions are needed.
    measure: `mse` or `mae`.
    errors: after 0, 1, ..., S inner steps, (S + 1, B); with several seeds, the mean over them.
    nll: negative log-likelihoods per point likewise, (S + 1, B); None without predictive distribution.
    """

    test_tasks: TestTasks
    measure: str
    errors: Tensor
    nll: Tensor | None = None

    @property
    def columns(self) -> dict[str, Tensor]:
        """Errors and likelihoods of each task, (B,), by the name of their column: `mse_step_0`, `mse_step_1`, ..."""
        values = {self.measure: self.errors} | ({} if self.nll is None else {"nll": self.nll})
        return {f"{name}_step_{step}": row for name, rows in values.items() for step, row in enumerate(rows)}


def mean_task_errors(
    test_tasks: TestTasks, errors: Sequence[Mapping[str, Tensor]], runs: Sequence[int], measure: str
) -> TaskErrors:
    """The errors on the grid of each task, mean over `runs`, from those after each inner step: name of the points ->
    (R, B, 2). Without likelihoods."""
    index = Errors._fields.index(measure)
    means = [step["grid"][[*runs], :, index].double().mean(dim=0).to(step["grid"].dtype) for step in errors]
    return TaskErrors(test_tasks, measure, torch.stack(means))


def iter_task_rows(task_errors: TaskErrors) -> Iterator[dict[str, Any]]:
    """A row for each task: its index `task`, the columns of its function (see TaskFunctions), K as `shots`, and its
    errors. None where a column does not apply to a task."""
    test_tasks, start = task_errors.test_tasks, 0
    for block in test_tasks.iter_blocks():
        columns = block.functions.columns()
        stop = start + block.points["support"].x.shape[1]
        by_task = torch.stack([*task_errors.columns.values()])[:, start:stop].double().mT.tolist()
        for index, errors in enumerate(by_task):
            yield {
                "task": start + index,
                **{name: values[index] for name, values in columns.items()},
                "shots": test_tasks.num_shots,
                **dict(zip(task_errors.columns, errors, strict=True)),
            }
        start = stop
