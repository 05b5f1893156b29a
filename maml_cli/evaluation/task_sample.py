"""Functions of test tasks without a learner: a sample of the task distribution, and its mean."""

from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core import num_tasks
from maml_cli.evaluation.held_out import Protocol
from maml_cli.evaluation.trained_run import TrainedRun, held_out_tasks
from maml_cli.tasks import TestBlock


class TaskSample(NamedTuple):
    """Test tasks as lines.

    lines: inputs in ascending order and noise-free targets of each task of the sample, both (N,); the measured points
        of curves.
    mean: inputs and the mean of the targets over all test tasks; of curves, the mean curve of the training curves, and
        None where there are none.
    num_tasks: number of test tasks.
    is_mean_of_tests: whether the mean is that of the test tasks.
    """

    lines: list[tuple[Tensor, Tensor]]
    mean: tuple[Tensor, Tensor] | None
    num_tasks: int
    is_mean_of_tests: bool


@torch.no_grad()
def sample_lines(run: TrainedRun, protocol: Protocol, *, num_lines: int, num_points: int = 301) -> TaskSample:
    """The first `num_lines` of the test tasks of `protocol`, on `num_points` inputs, and the mean of all of them."""
    (tasks, *_) = held_out_tasks(run, protocol)
    x = torch.linspace(*run.experiment.family.test_range, num_points, dtype=torch.float64)
    lines: list[tuple[Tensor, Tensor]] = []
    total, count = torch.zeros(num_points, dtype=torch.float64), 0
    for block in tasks.iter_blocks():
        if callable(block.functions):
            size = num_tasks(block.points["support"])
            y = block.functions(x.reshape(-1, 1).expand(1, size, num_points, 1))[0, ..., 0]
            lines += [(x, values) for values in y[: num_lines - len(lines)]]
            total, count = total + y.sum(dim=0), count + size
        else:
            lines += _measured_lines(block)[: num_lines - len(lines)]
    mean = total / count if count else _mean_curve(run, block, x)
    return TaskSample(lines, None if mean is None else (x, mean), tasks.num_tasks, bool(count))


def _measured_lines(block: TestBlock) -> list[tuple[Tensor, Tensor]]:
    """All points of each curve of a block, by their inputs."""
    x, y = (torch.cat([block.points[name][axis] for name in ("support", "grid")], dim=-2)[0, ..., 0] for axis in (0, 1))
    return [(inputs[order], targets[order]) for inputs, targets, order in zip(x, y, x.argsort(dim=-1), strict=True)]


def _mean_curve(run: TrainedRun, block: TestBlock, x: Tensor) -> Tensor | None:
    """The mean curve, a baseline that does not depend on the task, at the inputs (N,); None without training curves."""
    baseline = run.experiment.family.baselines()["mean_curve"]
    if not callable(baseline):
        return None
    size = num_tasks(block.points["support"])
    predict = baseline(block.points["support"], block.functions).for_mse
    return predict(x.reshape(-1, 1).expand(1, size, len(x), 1))[0, 0, :, 0]
