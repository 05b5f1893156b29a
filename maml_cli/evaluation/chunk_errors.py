"""The errors of networks that adapt to a chunk of test tasks: by PyTorch, or by a compiled kernel if that pays.

Shapes: R runs, B tasks of a chunk, K points; of the parameters that tasks start from (R, P, ...), where P is 1 if the
tasks of a run share them, else B.
"""

from collections.abc import Callable, Iterator, Mapping
from math import nan
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.config import NUM_GRID
from maml_cli.core import MetaParams, Points, map_tensors, num_tasks, residual
from maml_cli.engines import AdaptedPoints, EvaluationKernel, EvaluationOptions, evaluation_kernel, evaluation_pays
from maml_cli.errors import ConfigError, FileError
from maml_cli.evaluation.held_out import TestTasks
from maml_cli.evaluation.statistics import PointErrors
from maml_cli.experiment import Experiment
from maml_cli.messages import print_message
from maml_cli.runtime import available_cores

MAX_THREADS = 8
"""Most threads of an evaluation by itself: a chunk lasts some milliseconds. Trainings evaluate with `run.threads`."""


class StepErrors(NamedTuple):
    """The results of a chunk after an inner step.

    errors: (3, R, B, 2), the mean squared and the mean absolute error of each task, by the points of PointErrors.
    predictions: on the grid, (R, B, K, 1), in the unit of the network; empty if they are not wanted.
    variance: of the predictive distribution there; NaN for a learner without one.
    """

    errors: Tensor
    predictions: Tensor
    variance: Tensor


ChunkErrors = Callable[[MetaParams, Mapping[str, Points]], Iterator[StepErrors]]
"""(meta-parameters (R, P, ...), points (R, B, K, D) by name) -> the results after 0, 1, ... inner steps."""


def chunk_errors(
    experiment: Experiment, test_tasks: TestTasks, *, steps: int, num_evaluations: int | None, wants_grid: bool
) -> ChunkErrors:
    """The function that adapts to chunks of `test_tasks` by `steps` inner steps.

    It calls a kernel where `evaluation_pays`. `num_evaluations` is the number of evaluations of equal size in the
    training that it is for, None for an evaluation by itself; `wants_grid` is whether the predictions on the grid are
    wanted.
    """
    unit = experiment.family.scaling.y_factor  # of the network in that of the tasks
    config, num_shots = experiment.config, test_tasks.num_shots
    all_tasks = (num_evaluations or 1) * test_tasks.num_tasks  # 0 if a training is shorter than run.eval_every
    pays = evaluation_pays(config, num_tasks=all_tasks, num_shots=num_shots, steps=steps)
    if pays and experiment.device.type == "cpu":
        try:
            if kernel := evaluation_kernel(config, num_shots=num_shots, steps=steps):
                num_predictions = NUM_GRID if wants_grid else 0
                num_threads = min(available_cores(), MAX_THREADS) if num_evaluations is None else config.run.threads
                return _by_kernel(kernel, EvaluationOptions(steps, unit, num_predictions, num_threads))
        except (OSError, FileError) as error:
            print_message(f"evaluating without a kernel: {error}")
    return _by_torch(experiment, steps, unit, wants_grid=wants_grid)


def _by_kernel(kernel: EvaluationKernel, options: EvaluationOptions) -> ChunkErrors:
    def compute(meta_params: MetaParams, points: Mapping[str, Points]) -> Iterator[StepErrors]:
        groups = [points[name] for name in PointErrors._fields]
        try:
            adapted = kernel.adapt(meta_params, AdaptedPoints(points["support"], groups), options)
        except MemoryError as error:
            raise ConfigError(f"evaluating by a kernel: {error}") from None
        for errors, predictions in zip(adapted.errors, adapted.predictions, strict=True):
            yield StepErrors(errors, predictions, predictions * nan)

    return compute


def _by_torch(experiment: Experiment, steps: int, unit: float, *, wants_grid: bool) -> ChunkErrors:
    def compute(meta_params: MetaParams, points: Mapping[str, Points]) -> Iterator[StepErrors]:
        count = num_tasks(points["support"])
        start = map_tensors(lambda value: value.expand(-1, count, *value.shape[2:]), meta_params)
        for params in experiment.algorithm.unroll(start, points["support"], steps):
            predictions = {name: experiment.predict(params, points[name].x) for name in PointErrors._fields}
            errors = [mean_errors(residual(predictions[name], points[name].y) / unit) for name in predictions]
            grid = predictions["grid"] if wants_grid else predictions["grid"][..., :0, :]
            of_grid = experiment.variance if wants_grid else None
            variance = of_grid(params, points["grid"].x) if of_grid else grid * nan
            yield StepErrors(torch.stack(errors), grid, variance)

    return compute


def mean_errors(error: Tensor) -> Tensor:
    """(R, B, K, 1) -> (R, B, 2): the mean squared and the mean absolute error of each task."""
    return torch.stack([(error * error).mean(dim=(-2, -1)), error.abs().mean(dim=(-2, -1))], dim=-1)
