"""Several runs on the same test tasks: their errors in one table, and their differences task by task.

Shapes: B test tasks; errors are (B,), one number a task.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_cli.config import to_dict
from maml_cli.errors import ConfigError
from maml_cli.evaluation.held_out import Protocol, sample_test_tasks
from maml_cli.evaluation.progress import OnTasks, ignore_tasks
from maml_cli.evaluation.run_evaluation import check_run_memory
from maml_cli.evaluation.statistics import Errors, PointErrors, Statistic, statistic, summarise_runs
from maml_cli.evaluation.task_errors import baseline_errors, learner_errors
from maml_cli.evaluation.trained_run import TrainedRun, last_inner_step
from maml_cli.tasks import FUNCTION_GRID, Approximation

POINT_KEYS = ("num_support", "num_query", "query_sampling", "file")
"""Keys of the config's section `tasks` that describe the points of training or the place of a table, not the family."""


class RunComparison(NamedTuple):
    """A run among several.

    label: its name.
    trained_steps: inner steps of training.
    compared_step: inner step after which it is compared.
    num_seeds: number of its runs side by side, without diverged runs.
    steps: its errors after 0, 1, ... inner steps; over its seeds, see Statistic.
    difference: over tasks, its error less that of the first run, each at its own `compared_step` and the mean over its
        seeds. Zero on tasks where both overflow; None for the first run itself.
    """

    label: str
    trained_steps: int
    compared_step: int
    num_seeds: int
    steps: list[PointErrors]
    difference: Statistic | None


class Comparison(NamedTuple):
    """Runs on the same test tasks at one K.

    shots: K, the support points of a task.
    num_tasks: number of test tasks.
    seed: of the test tasks.
    measure: error of the differences, on the grid: `mae` if all runs were trained on L1, else `mse`.
    runs: in the order given.
    grid_name: the points `grid` in words.
    baselines: errors of the family's predictors without meta-learning, by name, as far as they are known exactly.
    """

    shots: int
    num_tasks: int
    seed: int
    measure: str
    runs: list[RunComparison]
    grid_name: str = FUNCTION_GRID
    baselines: Mapping[str, PointErrors] = MappingProxyType({})


def compare_runs(
    runs: Sequence[TrainedRun], protocol: Protocol, *, any_family: bool = False, on_tasks: OnTasks = ignore_tasks
) -> list[Comparison]:
    """One comparison for each K of `protocol`, by default the K that all were trained with, or the
    smallest and the largest of their range.

    Each run is compared after `protocol.steps` inner steps, by default after those it was trained for. Raises
    ConfigError if the families differ; with `any_family` all are compared on the tasks of the first run's family. Also
    raises it if more memory is needed than is available. `on_tasks` is called after each chunk of tasks of a run.
    """
    shots = comparable_shots(runs, protocol, any_family=any_family)
    for run in runs:
        check_run_memory(run, protocol._replace(shots=shots))
    return [_compare(runs, protocol, num_shots, on_tasks) for num_shots in shots]


def comparable_shots(runs: Sequence[TrainedRun], protocol: Protocol, *, any_family: bool = False) -> tuple[int, ...]:
    """Each K at which `runs` are compared; raises ConfigError if there is none, or the families differ, as
    `compare_runs`."""
    if not any_family:
        check_families(runs)
    return protocol.shots or _common_shots(runs)


def measure_of(runs: Sequence[TrainedRun]) -> str:
    """The error by which runs are compared: `mae` if all were trained on L1, else `mse`."""
    return runs[0].measure if len({run.measure for run in runs}) == 1 else "mse"


def _compare(runs: Sequence[TrainedRun], protocol: Protocol, num_shots: int, on_tasks: OnTasks) -> Comparison:
    measure = measure_of(runs)
    last_steps = [last_inner_step(run, protocol) for run in runs]
    tasks = sample_test_tasks(runs[0].experiment.family, protocol, num_shots)
    compared: list[RunComparison] = []
    first_errors: Tensor | None = None
    for run, last_step in zip(runs, last_steps, strict=True):
        trained = run.config.trained_steps
        step = trained if protocol.steps is None else protocol.steps
        indices = [*run.run_index.values()]
        errors = learner_errors(run.experiment, run.meta_params, tasks, steps=last_step, on_tasks=on_tasks)
        errors_at_step = errors[step]["grid"][indices, :, Errors._fields.index(measure)].double().mean(dim=0)
        errors_at_step = errors_at_step.nan_to_num(nan=math.inf, posinf=math.inf)
        difference = None if first_errors is None else _difference(errors_at_step, first_errors)
        first_errors = errors_at_step if first_errors is None else first_errors
        by_step = [summarise_runs(at_step, indices) for at_step in errors]
        compared.append(RunComparison(run.name, trained, step, len(indices), by_step, difference))
    baselines = {
        name: summarise_runs(baseline_errors(tasks, name, baseline, on_tasks=on_tasks), [0])
        for name, baseline in tasks.family.baselines().items()
        if baseline is not None and not isinstance(baseline, Approximation)
    }
    return Comparison(num_shots, tasks.num_tasks, protocol.seed, measure, compared, tasks.family.grid_name, baselines)


def _difference(errors: Tensor, first_errors: Tensor) -> Statistic:
    return statistic(torch.where(errors == first_errors, 0.0, errors - first_errors))


def _common_shots(runs: Sequence[TrainedRun]) -> tuple[int, ...]:
    sections = sorted((run.config.tasks for run in runs), key=lambda tasks: tasks.support_range)
    ranges = [tasks.support_range for tasks in sections]
    if len(set(ranges)) > 1:
        trained = dict.fromkeys(tasks.support_in_words for tasks in sections)
        of_most = max(sorted({*sum(ranges, ())}), key=lambda k: sum(low <= k <= high for low, high in ranges))
        raise ConfigError(
            f"the runs were trained with K = {', '.join(trained)}; give the K to compare them at, such as "
            f"--shots {of_most}"
        )
    return sections[0].trained_shots


def check_families(runs: Sequence[TrainedRun]) -> None:
    """Raises ConfigError if the task families of `runs` differ."""
    first, expected = runs[0], _family(runs[0])
    for run in runs[1:]:
        for key, actual in _family(run).items():
            if actual != expected[key]:
                raise ConfigError(
                    f"{run.checkpoint.label}: another family than {first.checkpoint.label}: tasks.{key} is {actual}, "
                    f"not {expected[key]}; maml compare and maml diff take the tasks of the first with --any-family"
                )


def _family(run: TrainedRun) -> dict[str, Any]:
    """The keys of the section `tasks` on which test tasks depend; curves may be normalised in different ways."""
    tasks = to_dict(run.config)["tasks"]
    measured = tasks["data"].pop("measured")
    del tasks["data"]["normalise"]
    keys = {key: value for key, value in tasks.items() if key not in POINT_KEYS}
    return keys | {"data.measured.digest": measured and measured["digest"]}
