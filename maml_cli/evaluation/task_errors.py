"""The errors of each test task: of learners after every inner step, of baselines, and of predicting zero.

Shapes: R runs, B test tasks, K points; errors are (R, B, 2), the mean squared and the mean absolute error of each task.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from maml_cli.config import NUM_GRID
from maml_cli.core import MetaParams, Points, expand_to_tasks, num_tasks, tensors
from maml_cli.evaluation.chunk_errors import chunk_errors, mean_errors
from maml_cli.evaluation.held_out import TestTasks
from maml_cli.evaluation.memory import chunk_size
from maml_cli.evaluation.progress import OnTasks, counted, ignore_tasks
from maml_cli.evaluation.statistics import PointErrors
from maml_cli.experiment import Experiment
from maml_cli.tasks import Approximation, Baseline

OnGrid = Callable[[int, Tensor, Tensor, Tensor], None]
"""(inner step, predictions, targets, variances of the predictive distribution) of some tasks on the grid, all (R,
tasks, K, 1); variances are NaN for a learner without one."""

MAX_PREDICTIONS = 2**24
"""Predictions on the grid that are stored at a time."""


def learner_errors(
    experiment: Experiment,
    meta_params: MetaParams,
    test_tasks: TestTasks,
    *,
    steps: int,
    num_evaluations: int | None = None,
    on_grid: OnGrid | None = None,
    on_tasks: OnTasks = ignore_tasks,
) -> list[dict[str, Tensor]]:
    """Errors of the learner `meta_params` after 0, 1, ..., `steps` inner steps: name of the points -> (R, B, 2).

    `num_evaluations` is the number of evaluations of equal size in a training, which share a kernel if they last long
    enough; None for an evaluation by itself.
    """
    num_runs, chunk = len(tensors(meta_params)[0]), chunk_size(meta_params, test_tasks.num_shots)
    if on_grid:
        chunk = max(1, min(chunk, MAX_PREDICTIONS // ((steps + 1) * num_runs * NUM_GRID)))
    return adapted_errors(
        experiment,
        test_tasks,
        lambda count: expand_to_tasks(meta_params, 1),
        chunk=chunk,
        num_runs=num_runs,
        steps=steps,
        num_evaluations=num_evaluations,
        on_grid=on_grid,
        on_count=counted(on_tasks, "learner", test_tasks),
    )


@torch.no_grad()
def adapted_errors(
    experiment: Experiment,
    test_tasks: TestTasks,
    initial: Callable[[int], MetaParams],
    *,
    num_runs: int,
    steps: int,
    num_evaluations: int | None = None,
    chunk: int | None = None,
    on_grid: OnGrid | None = None,
    on_count: Callable[[int], None] = lambda count: None,
) -> list[dict[str, Tensor]]:
    """Errors after 0, 1, ..., `steps` inner steps from `initial`: for each, name of the points -> (R, B, 2).

    `initial(count)` gives the meta-parameters that the next `count` tasks start from, (R, P, ...), where P is 1 if the
    tasks of a run share them, else `count`. The errors are all that grows with the number of tasks, of which `chunk`,
    by default CHUNK, adapt at a time. `on_grid` is called with the predictions of each chunk after each inner step,
    `on_count` with the number of tasks after each chunk; it may raise to stop.
    """
    sizes = (steps + 1, len(PointErrors._fields), num_runs, test_tasks.num_tasks, 2)
    errors = torch.empty(sizes, dtype=experiment.dtype)
    start, unit = 0, experiment.family.scaling.y_factor  # of the network in that of the tasks
    compute = chunk_errors(
        experiment, test_tasks, steps=steps, num_evaluations=num_evaluations, wants_grid=on_grid is not None
    )
    for groups in test_tasks.iter_chunks(experiment.network_inputs, num_runs=num_runs, chunk=chunk):
        points = {
            name: Points(*(tensor.to(experiment.device, experiment.dtype) for tensor in group))
            for name, group in groups.items()
        }
        count = num_tasks(points["support"])
        for step, result in enumerate(compute(initial(count), points)):
            errors[step, ..., start : start + count, :] = result.errors
            if on_grid:
                on_grid(step, result.predictions / unit, points["grid"].y / unit, result.variance / unit**2)
        start += count
        on_count(start)
    return [dict(zip(PointErrors._fields, step, strict=True)) for step in errors]


def baseline_errors(
    test_tasks: TestTasks, name: str, baseline: Baseline | Approximation, *, on_tasks: OnTasks = ignore_tasks
) -> dict[str, Tensor]:
    """Errors of the baseline `name`: name of the points -> (1, B, 2)."""
    on_count = counted(on_tasks, f"baseline {name}", test_tasks)
    make_predictors = baseline.baseline if isinstance(baseline, Approximation) else baseline
    errors = torch.empty(len(PointErrors._fields), 1, test_tasks.num_tasks, 2, dtype=torch.float64)
    start = 0
    for points, functions, _ in test_tasks.iter_blocks():
        predictors = make_predictors(points["support"], functions)
        stop = start + num_tasks(points["support"])
        for row, points_name in zip(errors, PointErrors._fields, strict=True):
            x, y = points[points_name]
            for measure, predict in enumerate(predictors):
                row[:, start:stop, measure] = mean_errors(predict(x) - y)[..., measure]
        start = stop
        on_count(start)
    return dict(zip(PointErrors._fields, errors, strict=True))


def zero_errors(test_tasks: TestTasks) -> dict[str, Tensor]:
    """The mean over tasks of the errors of predicting zero: name of the points -> (R, 2), R streams of tasks."""
    sums = dict.fromkeys(PointErrors._fields, torch.zeros(len(test_tasks.seeds), 2, dtype=torch.float64))
    for points, *_ in test_tasks.iter_blocks():
        sums = {name: total + mean_errors(points[name].y).sum(dim=1) for name, total in sums.items()}
    return {name: total / test_tasks.num_tasks for name, total in sums.items()}
