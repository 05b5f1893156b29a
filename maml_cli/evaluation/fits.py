"""Fits: a learner's predictions for single test tasks, after each inner step, on a fine grid."""

from typing import NamedTuple

import torch

from maml_cli.core import MetaParams, Points, expand_to_tasks, num_tasks, select_run
from maml_cli.evaluation.held_out import Protocol, TaskBlock
from maml_cli.evaluation.memory import Lower, check_memory
from maml_cli.evaluation.trained_run import TrainedRun, held_out_tasks
from maml_cli.experiment import Experiment


class TaskFit(NamedTuple):
    """Predictions for one task, after each inner step.

    x: inputs of a fine grid, (points,).
    truth: noise-free targets, (points,).
    predictions: of the network after 0, 1, ..., S inner steps, (S + 1, points).
    support_x, support_y: the support points, (K,).
    """

    x: torch.Tensor
    truth: torch.Tensor
    predictions: torch.Tensor
    support_x: torch.Tensor
    support_y: torch.Tensor


@torch.no_grad()
def fit_tasks(run: TrainedRun, protocol: Protocol, *, num_points: int = 301) -> list[TaskFit]:
    """Fits to the first `protocol.num_tasks` functions of the test tasks, after 0, 1, ..., S inner steps.

    S is `protocol.steps`, by default the trained number; K is the first of `protocol.shots`, by default the trained K.
    The support points are drawn for that many tasks alone.
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
    first_run = select_run(run.meta_params, run.first_index)
    x = torch.linspace(*run.experiment.family.test_range, num_points, dtype=torch.float64)
    return [fit for block in tasks.iter_blocks() for fit in _fit_block(run.experiment, first_run, block, x, steps)]


def _fit_block(
    experiment: Experiment, meta_params: MetaParams, block: TaskBlock, x: torch.Tensor, steps: int
) -> list[TaskFit]:
    support = block.points["support"]
    count, num_points = num_tasks(support), len(x)
    grid = x.reshape(num_points, 1).expand(1, count, num_points, 1)
    truth = block.functions(grid)
    inputs = [experiment.network_inputs(points, block.functions) for points in (support, Points(grid, truth))]
    on_support, on_grid = (Points(*(t.to(experiment.device, experiment.dtype) for t in points)) for points in inputs)
    adapted = experiment.algorithm.unroll(expand_to_tasks(meta_params, count), on_support, steps)
    predictions = torch.stack([experiment.predict(params, on_grid.x)[0, ..., 0] for params in adapted]).cpu().double()
    return [
        TaskFit(x, truth[0, i, :, 0], predictions[:, i], support.x[0, i, :, 0], support.y[0, i, :, 0])
        for i in range(count)
    ]
