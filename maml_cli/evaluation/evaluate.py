"""Evaluation: the statistics of a learner's errors, after each inner step, on held-out tasks, with baselines.

Shapes: R runs, B test tasks, S inner steps; errors are (R, B, 2), see task_errors.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core import MetaParams, expand_to_tasks, select_run
from maml_cli.evaluation.calibration import Calibration, CalibrationByTask, new_calibration
from maml_cli.evaluation.ensemble import EnsembleErrors, new_ensemble
from maml_cli.evaluation.held_out import TestTasks
from maml_cli.evaluation.memory import chunk_size
from maml_cli.evaluation.progress import OnTasks, counted, ignore_tasks
from maml_cli.evaluation.statistics import Limits, PointErrors, summarise_runs, summarise_tasks
from maml_cli.evaluation.tails import DIVERGED
from maml_cli.evaluation.task_errors import OnGrid, adapted_errors, baseline_errors, learner_errors, zero_errors
from maml_cli.evaluation.task_rows import TaskErrors, mean_task_errors
from maml_cli.experiment import Experiment
from maml_cli.tasks import FUNCTION_GRID, KIND, Approximation, make_generator


class KindErrors(NamedTuple):
    """The errors on the test tasks of one component of a mixture.

    num_tasks: their number.
    steps: of the learner after 0, 1, ... inner steps, as in Evaluation.
    baselines: of the family's predictors without meta-learning, as in Evaluation.
    """

    num_tasks: int
    steps: list[PointErrors]
    baselines: dict[str, PointErrors | None]


class Evaluation(NamedTuple):
    """The result of one evaluation at one K.

    shots: K, the support points of a task.
    num_tasks: number of test tasks.
    seed: of the test tasks.
    trained_steps: inner steps of training.
    steps: errors of the learner after 0, 1, ... inner steps; over all seeds in `by_seed`, see Statistic.
    random_init: errors of untrained networks, drawn anew for each task and adapted by the same rule, after 0, 1, ...
        inner steps.
    baselines: errors of the family's predictors without meta-learning, by name; None where one makes no sense or was
        is not known.
    notes: the difference of each baseline that was computed approximately, by name.
    by_seed: errors as in `steps` of each run trained side by side, without diverged runs, by its seed of training.
    noisy_targets: whether the errors on grid and fresh points are against targets with the family's noise.
    by_kind: errors on the tasks of each component of a mixture, by its label; empty for other families.
    ensemble: errors of the mean prediction over the seeds in `by_seed` after 0, 1, ... inner steps; empty for one seed.
    calibration: of the predictive distribution after 0, 1, ... inner steps; empty for a learner without one.
    task_errors: the error of each task; None unless they were to be kept.
    grid_name: the points `grid` in words.
    """

    shots: int
    num_tasks: int
    seed: int
    trained_steps: int
    steps: list[PointErrors]
    random_init: list[PointErrors]
    baselines: dict[str, PointErrors | None]
    notes: dict[str, str]
    by_seed: dict[int, list[PointErrors]]
    noisy_targets: bool
    by_kind: dict[str, KindErrors]
    ensemble: list[EnsembleErrors]
    calibration: list[Calibration]
    task_errors: TaskErrors | None
    grid_name: str = FUNCTION_GRID


def evaluate(
    experiment: Experiment,
    meta_params: MetaParams,
    test_tasks: TestTasks,
    *,
    steps: int,
    trained_steps: int,
    run_index: Mapping[int, int] | None = None,
    keep: str | None = None,
    on_tasks: OnTasks = ignore_tasks,
) -> Evaluation:
    """Adapt to `test_tasks` and report the errors after 0, 1, ..., `steps` inner steps, with baselines.

    `run_index` has the index in `meta_params` of each seed that counts, by default that of a single run with seed 0.
    Untrained networks adapt by the update rule of the first of these runs. `keep` is the measure, `mse` or `mae`, of
    which the error of each task is kept. `on_tasks` is called after each chunk of tasks. Memory: 24 bytes for each run,
    test task and inner step in float32, 12 more with a predictive distribution, 4 more for each task and inner step
    that is kept, and a constant.
    """
    run_index = run_index or {0: 0}
    runs = [*run_index.values()]
    limits, kinds = divergence_limits(test_tasks), tasks_by_kind(test_tasks)
    ensemble = new_ensemble(runs, steps)
    calibration = new_calibration(test_tasks) if experiment.variance else None
    on_grid = _each([collector.add for collector in (ensemble, calibration) if collector])
    errors = learner_errors(experiment, meta_params, test_tasks, steps=steps, on_grid=on_grid, on_tasks=on_tasks)
    by_seed = _by_seed(errors, run_index, limits)
    summarise = partial(summarise_runs, limits=limits)
    over_seeds = [summarise(step, runs) for step in errors]
    by_kind = _by_kind(errors, kinds, lambda step, tasks: summarise(step, runs, tasks=tasks))
    task_errors = _errors_of_single_tasks(test_tasks, errors, runs, keep, calibration) if keep else None
    del errors
    random_init = _random_init(experiment, select_run(meta_params, runs[0]), test_tasks, steps=steps, on_tasks=on_tasks)
    family_baselines = test_tasks.family.baselines()
    baselines: dict[str, PointErrors | None] = {}
    for name, baseline in family_baselines.items():
        of_tasks = baseline and baseline_errors(test_tasks, name, baseline, on_tasks=on_tasks)
        baselines[name] = summarise(of_tasks, [0]) if of_tasks else None
        for kind, tasks in kinds.items():
            by_kind[kind].baselines[name] = summarise(of_tasks, [0], tasks=tasks) if of_tasks else None
    return Evaluation(
        shots=test_tasks.num_shots,
        num_tasks=test_tasks.num_tasks,
        seed=test_tasks.seeds[0],
        trained_steps=trained_steps,
        steps=over_seeds,
        random_init=[summarise(step, [0]) for step in random_init],
        baselines=baselines,
        notes={name: row.note for name, row in family_baselines.items() if isinstance(row, Approximation)},
        by_seed=by_seed,
        noisy_targets=test_tasks.noisy_targets,
        by_kind=by_kind,
        ensemble=ensemble.errors() if ensemble else [],
        calibration=calibration.statistics(runs) if calibration else [],
        task_errors=task_errors,
        grid_name=test_tasks.family.grid_name,
    )


def _by_kind(
    errors: Sequence[Mapping[str, Tensor]],
    kinds: Mapping[str, Tensor],
    summarise: Callable[[Mapping[str, Tensor], Tensor], PointErrors],
) -> dict[str, KindErrors]:
    """The errors of each kind of tasks after each inner step, without baselines."""
    return {
        kind: KindErrors(len(tasks), [summarise(step, tasks) for step in errors], {}) for kind, tasks in kinds.items()
    }


def _errors_of_single_tasks(
    test_tasks: TestTasks,
    errors: Sequence[Mapping[str, Tensor]],
    runs: list[int],
    keep: str,
    calibration: CalibrationByTask | None,
) -> TaskErrors:
    """The errors of single tasks by the measure `keep`, with their likelihoods if there are any."""
    task_errors = mean_task_errors(test_tasks, errors, runs, keep)
    return task_errors._replace(nll=calibration.mean_nll(runs)) if calibration else task_errors


def _each(functions: Sequence[OnGrid]) -> OnGrid | None:
    """A function that calls each of `functions`; None without any."""

    def on_grid(step: int, predictions: Tensor, targets: Tensor, variance: Tensor) -> None:
        for function in functions:
            function(step, predictions, targets, variance)

    return on_grid if functions else None


def divergence_limits(test_tasks: TestTasks) -> Limits:
    """The errors above which a task counts as diverged: DIVERGED times the mean error of predicting zero."""
    return {name: (DIVERGED * errors.mean(dim=0)).tolist() for name, errors in zero_errors(test_tasks).items()}


def tasks_by_kind(test_tasks: TestTasks) -> dict[str, Tensor]:
    """The indices of the tasks of each component of a mixture, by its label; empty for other families."""
    if not test_tasks.family.kinds:
        return {}
    labels = [label for block in test_tasks.iter_blocks() for label in block.functions.columns()[KIND]]
    indices = {kind: [i for i, label in enumerate(labels) if label == kind] for kind in test_tasks.family.kinds}
    return {kind: torch.tensor(tasks) for kind, tasks in indices.items() if tasks}


def _by_seed(
    errors: Sequence[Mapping[str, Tensor]], run_index: Mapping[int, int], limits: Limits
) -> dict[int, list[PointErrors]]:
    return {seed: [summarise_tasks(step, run=run, limits=limits) for step in errors] for seed, run in run_index.items()}


def _random_init(
    experiment: Experiment, first_run: MetaParams, test_tasks: TestTasks, *, steps: int, on_tasks: OnTasks
) -> list[dict[str, Tensor]]:
    """The errors of untrained networks after 0, 1, ... inner steps, as of `learner_errors`."""
    stream = make_generator(test_tasks.seeds[0], "random-init")

    def untrained(count: int) -> MetaParams:
        params = {key: value.unsqueeze(0) for key, value in experiment.init_params(stream, count).items()}
        return expand_to_tasks(first_run, 1)._replace(params=params)

    return adapted_errors(
        experiment,
        test_tasks,
        untrained,
        num_runs=1,
        steps=steps,
        chunk=chunk_size(first_run, test_tasks.num_shots),
        on_count=counted(on_tasks, "random initialisation", test_tasks),
    )
