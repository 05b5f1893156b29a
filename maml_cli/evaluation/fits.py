"""Fits: a learner's predictions for single test tasks, after each inner step, on a fine grid."""

import math
from typing import NamedTuple

import torch

from maml_cli.config import Config
from maml_cli.core import MetaParams, Points, expand_to_tasks, num_tasks, select_run
from maml_cli.evaluation.held_out import Protocol, TestTasks, sample_validation_tasks
from maml_cli.evaluation.memory import Lower, check_memory
from maml_cli.evaluation.trained_run import TrainedRun, held_out_tasks
from maml_cli.experiment import Experiment
from maml_cli.tasks import TestBlock

NUM_POINTS = 301
"""Points of the fine grid."""


class OtherPoints(NamedTuple):
    """The points of a curve without a formula that are not support points.

    x, y: inputs and targets, (M,).
    errors: of the predictions there after 0, 1, ..., S inner steps, (S + 1, M).
    """

    x: torch.Tensor
    y: torch.Tensor
    errors: torch.Tensor


class TaskFit(NamedTuple):
    """Predictions for one task, after each inner step.

    x: inputs of a fine grid, (N,).
    truth: noise-free targets on the grid, (N,); NaN for a curve without a formula.
    predictions: of the network after 0, 1, ..., S inner steps, (S + 1, N).
    support_x, support_y: the support points, (K,).
    others: the other points of a curve; None where the truth is known.
    std: standard deviation of new targets after 0, 1, ..., S inner steps, (S + 1, N); None without a predictive
        distribution.
    """

    x: torch.Tensor
    truth: torch.Tensor
    predictions: torch.Tensor
    support_x: torch.Tensor
    support_y: torch.Tensor
    others: OtherPoints | None = None
    std: torch.Tensor | None = None

    @property
    def errors(self) -> torch.Tensor:
        """Predictions less the truth on the grid, or less the targets of the other points, (S + 1, N or M)."""
        return self.predictions - self.truth if self.others is None else self.others.errors


@torch.no_grad()
def fit_tasks(run: TrainedRun, protocol: Protocol, *, num_points: int = NUM_POINTS) -> list[TaskFit]:
    """Fits to the first `protocol.num_tasks` functions of the test tasks, after 0, 1, ..., S inner steps.

    S is `protocol.steps`, by default the trained number; K is the first of `protocol.shots`, by default the
    smallest that was trained. The support points are drawn for that many tasks alone.
    """
    steps = run.resolve_steps(protocol.steps, run.config.inner.steps)
    (tasks, *_) = held_out_tasks(run, protocol)
    check_memory(
        run.meta_params,
        num_tasks=protocol.num_tasks,
        num_shots=max(tasks.num_shots, num_points),
        steps=steps,
        lower=Lower("--steps", "--shots"),
    )
    return _fit(run.experiment, select_run(run.meta_params, run.first_index), tasks, steps, num_points)


@torch.no_grad()
def fit_validation_tasks(
    config: Config, experiment: Experiment, meta_params: MetaParams, index: int, *, count: int
) -> list[TaskFit]:
    """Fits of the run at `index` to `count` validation tasks of its seed, at the largest K, after 0, 1, ..., S inner
    steps of the trained number; the same tasks whenever it is called. `meta_params` are of all runs."""
    seeds, shots = [config.seeds[index]], config.tasks.max_support
    tasks = sample_validation_tasks(experiment.family, seeds, num_tasks=count, num_shots=shots)
    return _fit(experiment, select_run(meta_params, index), tasks, config.inner.steps, NUM_POINTS)[:count]


def _fit(
    experiment: Experiment, meta_params: MetaParams, tasks: TestTasks, steps: int, num_points: int
) -> list[TaskFit]:
    x = torch.linspace(*experiment.family.test_range, num_points, dtype=torch.float64)
    return [fit for block in tasks.iter_blocks() for fit in _fit_block(experiment, meta_params, block, x, steps)]


def _fit_block(
    experiment: Experiment, meta_params: MetaParams, block: TestBlock, x: torch.Tensor, steps: int
) -> list[TaskFit]:
    support, others, functions = block.points["support"], block.points["grid"], block.functions
    count, num_points = num_tasks(support), len(x)
    grid = x.reshape(num_points, 1).expand(1, count, num_points, 1)
    if is_known := callable(functions):
        truth = functions(grid)
        others = Points(truth[..., :0, :], truth[..., :0, :])
    else:
        truth = torch.full_like(grid, math.nan)
    shown = Points(torch.cat([grid, others.x], dim=-2), torch.cat([truth, others.y], dim=-2))
    inputs = [experiment.network_inputs(points, functions) for points in (support, shown)]
    on_support, on_shown = (Points(*(t.to(experiment.device, experiment.dtype) for t in points)) for points in inputs)
    adapted = experiment.algorithm.unroll(expand_to_tasks(meta_params, count), on_support, steps)
    scaling, variances, outputs = experiment.family.scaling, list[torch.Tensor](), list[torch.Tensor]()
    for params in adapted:
        outputs.append(experiment.predict(params, on_shown.x)[0, ..., 0].cpu().double())
        variances += [experiment.variance(params, on_shown.x)[0, ..., 0].cpu().double()] if experiment.variance else []
    predictions = scaling.y_to_user(torch.stack(outputs))  # (S + 1, B, N + M)
    std = torch.stack(variances).sqrt() / scaling.y_factor if variances else None
    errors = predictions - shown.y[0, ..., 0]
    return [
        TaskFit(
            x,
            truth[0, i, :, 0],
            predictions[:, i, :num_points],
            support.x[0, i, :, 0],
            support.y[0, i, :, 0],
            None if is_known else OtherPoints(others.x[0, i, :, 0], others.y[0, i, :, 0], errors[:, i, num_points:]),
            None if std is None else std[:, i, :num_points],
        )
        for i in range(count)
    ]
