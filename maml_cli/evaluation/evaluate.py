"""Evaluation: the errors of a learner, after each inner step, on held-out tasks.

Shapes: R runs, B test tasks, K points; errors are (R, B, 2), the mean squared and the mean absolute error of each task.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core import MetaParams, Points, expand_to_tasks, num_tasks, residual, select_run, tensors
from maml_cli.evaluation.held_out import TestTasks
from maml_cli.evaluation.memory import chunk_size
from maml_cli.evaluation.progress import OnTasks, counted, ignore_tasks
from maml_cli.evaluation.statistics import PointErrors, summarise_runs, summarise_tasks
from maml_cli.experiment import Experiment
from maml_cli.tasks import FUNCTION_GRID, Approximation, Baseline, make_generator


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
    grid_name: str = FUNCTION_GRID


def evaluate(
    experiment: Experiment,
    meta_params: MetaParams,
    test_tasks: TestTasks,
    *,
    steps: int,
    trained_steps: int,
    run_index: Mapping[int, int] | None = None,
    on_tasks: OnTasks = ignore_tasks,
) -> Evaluation:
    """Adapt to `test_tasks` and report the errors after 0, 1, ..., `steps` inner steps, with baselines.

    `run_index` has the index in `meta_params` of each seed that counts, by default that of a single run with seed 0.
    Untrained networks adapt by the update rule of the first of these runs. `on_tasks` is called after each chunk of
    tasks. Memory: 24 bytes for each run, test task and inner step in float32, and a constant.
    """
    run_index = run_index or {0: 0}
    errors = learner_errors(experiment, meta_params, test_tasks, steps=steps, on_tasks=on_tasks)
    by_seed = {seed: [summarise_tasks(step, run=index) for step in errors] for seed, index in run_index.items()}
    over_seeds = [summarise_runs(step, [*run_index.values()]) for step in errors]
    del errors
    first_run = select_run(meta_params, next(iter(run_index.values())))
    random_init = _random_init(experiment, first_run, test_tasks, steps=steps, on_tasks=on_tasks)
    baselines = test_tasks.family.baselines()
    return Evaluation(
        shots=test_tasks.num_shots,
        num_tasks=test_tasks.num_tasks,
        seed=test_tasks.seeds[0],
        trained_steps=trained_steps,
        steps=over_seeds,
        random_init=random_init,
        baselines={
            name: None
            if baseline is None
            else _baseline_errors(test_tasks, _predictors(baseline), counted(on_tasks, f"baseline {name}", test_tasks))
            for name, baseline in baselines.items()
        },
        notes={name: baseline.note for name, baseline in baselines.items() if isinstance(baseline, Approximation)},
        by_seed=by_seed,
        grid_name=test_tasks.family.grid_name,
    )


def learner_errors(
    experiment: Experiment,
    meta_params: MetaParams,
    test_tasks: TestTasks,
    *,
    steps: int,
    on_tasks: OnTasks = ignore_tasks,
) -> list[dict[str, Tensor]]:
    """Errors of the learner `meta_params` after 0, 1, ..., `steps` inner steps: name of the points -> (R, B, 2)."""
    return adapted_errors(
        experiment,
        test_tasks,
        lambda count: expand_to_tasks(meta_params, count),
        chunk=chunk_size(meta_params, test_tasks.num_shots),
        num_runs=len(tensors(meta_params)[0]),
        steps=steps,
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
    chunk: int | None = None,
    on_count: Callable[[int], None] = lambda count: None,
) -> list[dict[str, Tensor]]:
    """Errors after 0, 1, ..., `steps` inner steps from `initial`: for each, name of the points -> (R, B, 2).

    `initial(count)` gives the meta-parameters that the next `count` tasks start from, expanded to them. No graph is
    built through the inner steps, and the errors are all that grows with the number of tasks, of which `chunk`, by
    default CHUNK, adapt at a time. `on_count` is called with the number of tasks after each
    chunk; it may raise to stop.
    """
    sizes = (steps + 1, len(PointErrors._fields), num_runs, test_tasks.num_tasks, 2)
    errors = torch.empty(sizes, dtype=experiment.dtype)
    start = 0
    for groups in test_tasks.iter_chunks(experiment.network_inputs, num_runs=num_runs, chunk=chunk):
        points = {
            name: Points(*(tensor.to(experiment.device, experiment.dtype) for tensor in group))
            for name, group in groups.items()
        }
        count = num_tasks(points["support"])
        adapted = experiment.algorithm.unroll(initial(count), points["support"], steps)
        for errors_at_step, params in zip(errors[..., start : start + count, :], adapted, strict=True):
            for row, name in zip(errors_at_step, PointErrors._fields, strict=True):
                error = residual(experiment.predict(params, points[name].x), points[name].y)
                row[:] = _mean_errors(error / experiment.family.scaling.y_factor)
        start += count
        on_count(start)
    return [dict(zip(PointErrors._fields, step, strict=True)) for step in errors]


def _random_init(
    experiment: Experiment, first_run: MetaParams, test_tasks: TestTasks, *, steps: int, on_tasks: OnTasks
) -> list[PointErrors]:
    stream = make_generator(test_tasks.seeds[0], "random-init")

    def untrained(count: int) -> MetaParams:
        params = {key: value.unsqueeze(0) for key, value in experiment.init_params(stream, count).items()}
        return expand_to_tasks(first_run, count)._replace(params=params)

    errors = adapted_errors(
        experiment,
        test_tasks,
        untrained,
        num_runs=1,
        steps=steps,
        chunk=chunk_size(first_run, test_tasks.num_shots),
        on_count=counted(on_tasks, "random initialisation", test_tasks),
    )
    return [summarise_tasks(step) for step in errors]


def _predictors(baseline: Baseline | Approximation) -> Baseline:
    return baseline.baseline if isinstance(baseline, Approximation) else baseline


def _baseline_errors(test_tasks: TestTasks, baseline: Baseline, on_count: Callable[[int], None]) -> PointErrors:
    errors = torch.empty(len(PointErrors._fields), 1, test_tasks.num_tasks, 2, dtype=torch.float64)
    start = 0
    for points, functions in test_tasks.iter_blocks():
        predictors = baseline(points["support"], functions)
        stop = start + num_tasks(points["support"])
        for row, name in zip(errors, PointErrors._fields, strict=True):
            for measure, predict in enumerate(predictors):
                row[:, start:stop, measure] = _mean_errors(predict(points[name].x) - points[name].y)[..., measure]
        start = stop
        on_count(start)
    return summarise_tasks(dict(zip(PointErrors._fields, errors, strict=True)))


def _mean_errors(error: Tensor) -> Tensor:
    """(R, B, K, 1) -> (R, B, 2): the mean squared and the mean absolute error of each task."""
    return torch.stack([(error * error).mean(dim=(-2, -1)), error.abs().mean(dim=(-2, -1))], dim=-1)
