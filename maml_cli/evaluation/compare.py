"""Several runs on the same tasks: their errors side by side, and their differences task by task.

Shapes: B tasks of the bank; errors are (B,), one number a task.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.config import to_dict
from maml_cli.errors import ConfigError
from maml_cli.evaluation.evaluate import (
    PointErrors,
    Protocol,
    Statistic,
    aggregate_seeds,
    learner_errors,
    sample_test_tasks,
    statistic,
    summarise_tasks,
)
from maml_cli.evaluation.trained_run import TrainedRun
from maml_cli.tasks import SineFamily


class RunComparison(NamedTuple):
    """A run among others: its errors after inner steps 0, 1, ..., and those at inner step `at`, where it is compared.

    `difference` is the mean over tasks of its error less that of the first run, each at its own `at`, with the 95 %
    interval of that mean; None for the first run itself. On tasks where both overflow there is no difference. Errors of
    `num_seeds` runs side by side are their means.
    """

    label: str
    trained_steps: int
    compared_step: int
    num_seeds: int
    steps: list[PointErrors]
    difference: Statistic | None


class Comparison(NamedTuple):
    """Runs on one bank of tasks at one K; `measure` is the error of the differences, on the grid."""

    shots: int
    num_tasks: int
    seed: int
    measure: str
    runs: list[RunComparison]


def compare_runs(runs: Sequence[TrainedRun], protocol: Protocol, *, any_family: bool = False) -> list[Comparison]:
    """One comparison for each K of `protocol`, by default the K that all were trained with.

    Each run is compared after `protocol.steps` inner steps, by default after those it was trained for. Raises
    ConfigError if the families differ; with `any_family` all are compared on the tasks of the first run's family.
    """
    if not any_family:
        _check_families(runs)
    return [_compare(runs, protocol, num_shots) for num_shots in protocol.shots or (_common_shots(runs),)]


def _compare(runs: Sequence[TrainedRun], protocol: Protocol, num_shots: int) -> Comparison:
    steps, num_tasks, seed = protocol.steps, protocol.num_tasks, protocol.seed
    measure = runs[0].measure if len({run.measure for run in runs}) == 1 else "mse"
    family = runs[0].experiment.family
    last_steps = [run.resolve_steps(steps, max(10, run.config.inner.steps)) for run in runs]
    bank = sample_test_tasks(family, seed=seed, purpose="test", num_tasks=num_tasks, num_shots=num_shots)
    compared: list[RunComparison] = []
    first: Tensor | None = None
    for run, last_step in zip(runs, last_steps, strict=True):
        trained = run.config.trained_steps
        at = trained if steps is None else steps
        errors = learner_errors(run.experiment, run.meta_params, bank, steps=last_step)
        places = [*run.run_index.values()]
        there = errors[at]["grid"][places, :, 0 if measure == "mse" else 1].double().mean(dim=0)
        there = there.nan_to_num(nan=math.inf, posinf=math.inf)
        difference = None if first is None else statistic(torch.where(there == first, 0.0, there - first))
        first = there if first is None else first
        by_step = [aggregate_seeds([summarise_tasks(step, run=place) for place in places]) for step in errors]
        compared.append(RunComparison(run.name, trained, at, len(places), by_step, difference))
    return Comparison(num_shots, num_tasks, seed, measure, compared)


def _common_shots(runs: Sequence[TrainedRun]) -> int:
    trained = sorted({run.config.tasks.num_support for run in runs})
    if len(trained) > 1:
        raise ConfigError(
            f"the runs were trained with K = {', '.join(map(str, trained))}; give the K to compare them at, such as "
            f"--shots {trained[0]}"
        )
    return trained[0]


def _check_families(runs: Sequence[TrainedRun]) -> None:
    first, *others = runs
    for other, key in itertools.product(others, SineFamily._fields):
        mine, its = (to_dict(run.config)["tasks"][key] for run in (first, other))
        if mine != its:
            raise ConfigError(
                f"{other.checkpoint.label}: another family than {first.checkpoint.label}: tasks.{key} is {its}, not "
                f"{mine}; with --any-family all are compared on the tasks of the first"
            )
