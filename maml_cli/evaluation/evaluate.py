"""Evaluation: the errors of a learner, after each inner step, on a fixed bank of tasks that training never sees.

Shapes: R runs, B tasks (here: of the bank), K points; errors are (R, B), one number a task.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import NormalDist, stdev
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core import Algorithm, MetaParams, Params, Points, Predict, expand_to_tasks, residual
from maml_cli.experiment import Experiment
from maml_cli.tasks import Predictor, SineFamily, Sinusoids, make_generator, sinusoid_baselines

NUM_GRID = 100
# Tasks adapted at a time: memory stays bounded, and the activations in the processor's cache. Part of the protocol:
# the random initialisations of the baseline are drawn by the chunk.
CHUNK = 100


class Statistic(NamedTuple):
    """A number over tasks: its mean, the half width of the mean's 95 % interval, and its median."""

    mean: float
    ci95: float
    median: float


class Errors(NamedTuple):
    """Mean squared and mean absolute error of each task's points."""

    mse: Statistic
    mae: Statistic


class PointErrors(NamedTuple):
    """Errors on the grid over the range of x, on fresh random query points, and on the support points."""

    grid: Errors
    query: Errors
    support: Errors


class Baselines(NamedTuple):
    """What the same tasks cost without meta-learning; `random_init` holds one entry for each inner step.

    `least_squares` is told the frequency of each task; `least_squares_any_frequency` has to find it, and is None where
    all tasks have the same.
    """

    zero: PointErrors
    best_unadapted: PointErrors
    random_init: list[PointErrors]
    least_squares: PointErrors
    least_squares_any_frequency: PointErrors | None


class Evaluation(NamedTuple):
    """The result of one evaluation at one K; `steps` holds one entry for each inner step, from 0.

    `by_seed` holds such steps for each of the runs trained side by side, but for those that diverged; where there are
    several, `steps` has their mean, its 95 % interval over seeds, and the mean of their medians.
    """

    shots: int
    num_tasks: int
    seed: int
    trained_steps: int
    steps: list[PointErrors]
    baselines: Baselines
    by_seed: dict[int, list[PointErrors]]


class Protocol(NamedTuple):
    """What an evaluation does, apart from the learner.

    num_tasks: test tasks.
    shots: K, the support points of a task; one evaluation for each entry, none for the K of training.
    steps: inner steps, or None for the default: max(10, trained steps), or fewer where alphas end.
    seed: of the test tasks; equal seeds give equal tasks to every run.
    """

    num_tasks: int = 10_000
    shots: tuple[int, ...] = ()
    steps: int | None = None
    seed: int = 0


class TestTasks(NamedTuple):
    """Test tasks: what each may adapt on, the noise-free points it is judged by, and the truth; in float64."""

    support: Points
    points: dict[str, Points]
    functions: Sinusoids

    def with_network_inputs(self, inputs: Callable[[Points, Sinusoids], Points]) -> "TestTasks":
        """The same tasks as a network sees them of which `inputs` makes the inputs."""
        points = {name: inputs(split, self.functions) for name, split in self.points.items()}
        return TestTasks(inputs(self.support, self.functions), points, self.functions)

    def expand_to_runs(self, count: int) -> "TestTasks":
        """The same tasks for each of `count` runs; a bank that has as many stays as it is."""

        def spread(split: Points) -> Points:
            return Points(*(part.expand(count, *part.shape[1:]) for part in split))

        return self._replace(support=spread(self.support), points={k: spread(v) for k, v in self.points.items()})


def sample_test_tasks(
    family: SineFamily, *, seed: int | Sequence[int], purpose: str, num_tasks: int, num_shots: int
) -> TestTasks:
    """A bank of `num_tasks` tasks with K = `num_shots` support points, the same for the same arguments; one for each
    run, (R, ...), where there are several seeds.

    The tasks are the same for every K. Support targets have the family's noise, if any; the truth that errors are
    measured against, on the grid and on K fresh points, has none.
    """
    streams = [make_generator(one, purpose) for one in ([seed] if isinstance(seed, int) else seed)]
    batch, functions = family.sample(
        streams, num_tasks=num_tasks, num_support=num_shots, num_query=num_shots, dtype=torch.float64
    )
    grid = torch.linspace(*family.x, NUM_GRID, dtype=torch.float64).reshape(NUM_GRID, 1)
    grid = grid.expand(len(streams), num_tasks, NUM_GRID, 1)
    points = {"grid": grid, "query": batch.query.x}
    splits = {name: Points(x, functions(x)) for name, x in points.items()}
    return TestTasks(batch.support, splits | {"support": batch.support}, functions)


@torch.no_grad()
def adapted_errors(
    algorithm: Algorithm,
    predict: Predict,
    bank: TestTasks,
    metas: Callable[[int], MetaParams],
    *,
    steps: int,
    like: Tensor,
) -> list[dict[str, Tensor]]:
    """Errors after 0, 1, ..., `steps` inner steps: for each, name of points -> (R, B, 2), MSE and MAE.

    `metas(count)` gives what the next `count` tasks start from, broadcast to them; `like` has the dtype and device
    to compute in. No graph is built through the steps, and memory does not grow with the number of tasks.
    """
    found: list[list[dict[str, Tensor]]] = []
    for support, points in _chunks(bank, like):
        adapted = algorithm.unroll(metas(support.x.shape[-3]), support, steps)
        found.append([_point_errors(predict, params, points) for params in adapted])
    return [
        {name: torch.cat([chunk[name] for chunk in step], dim=1) for name in step[0]}
        for step in zip(*found, strict=True)
    ]


def learner_errors(experiment: Experiment, meta: MetaParams, bank: TestTasks, *, steps: int) -> list[dict[str, Tensor]]:
    """Errors of what `experiment` learned after 0, 1, ..., `steps` inner steps on the tasks of `bank`."""
    like = next(iter(meta.params.values()))
    return adapted_errors(
        experiment.algorithm,
        experiment.predict,
        bank.with_network_inputs(experiment.network_inputs).expand_to_runs(len(like)),
        lambda count: expand_to_tasks(meta, count),
        steps=steps,
        like=like,
    )


def evaluate(
    experiment: Experiment,
    meta: MetaParams,
    *,
    num_shots: int,
    num_tasks: int,
    seed: int,
    steps: int,
    trained_steps: int,
    runs: Mapping[int, int] | None = None,
) -> Evaluation:
    """Adapt to the test bank of `seed` and report errors after every step 0..`steps`, with the baselines beside.

    The baseline `random_init` adapts fresh untrained parameters for each task by the same rule, that of the first run.
    `runs` has the place in `meta` of each seed that counts, by default that of one run with seed 0.
    """
    family = experiment.family
    bank = sample_test_tasks(family, seed=seed, purpose="test", num_tasks=num_tasks, num_shots=num_shots)
    stream = make_generator(seed, "random-init")
    runs = runs or {0: 0}
    first = next(iter(runs.values()))

    def untrained(count: int) -> MetaParams:
        params = {key: value.unsqueeze(0) for key, value in experiment.init_params(stream, count).items()}
        rule = {key: value[first : first + 1] for key, value in expand_to_tasks(meta, count).rule_params.items()}
        return MetaParams(params, rule)

    def fitted(frequency: Tensor) -> PointErrors:
        answer = sinusoid_baselines.least_squares(family, bank.support, frequency)
        return _predictor_errors(bank, answer, answer)

    random = adapted_errors(
        experiment.algorithm,
        experiment.predict,
        bank.with_network_inputs(experiment.network_inputs),
        untrained,
        steps=steps,
        like=next(iter(meta.params.values())),
    )
    errors = learner_errors(experiment, meta, bank, steps=steps)
    by_seed = {name: [summarise_tasks(step, run=place) for step in errors] for name, place in runs.items()}
    varies = family.frequency[0] < family.frequency[1]
    return Evaluation(
        num_shots,
        num_tasks,
        seed,
        trained_steps,
        steps=[aggregate_seeds(found) for found in zip(*by_seed.values(), strict=True)],
        baselines=Baselines(
            zero=_predictor_errors(bank, sinusoid_baselines.predict_zero, sinusoid_baselines.predict_zero),
            best_unadapted=_predictor_errors(
                bank, sinusoid_baselines.conditional_mean(family), sinusoid_baselines.conditional_median(family)
            ),
            random_init=[summarise_tasks(errors) for errors in random],
            least_squares=fitted(bank.functions.frequency),
            least_squares_any_frequency=fitted(sinusoid_baselines.best_frequency(family, bank.support))
            if varies
            else None,
        ),
        by_seed=by_seed,
    )


def summarise_tasks(errors: Mapping[str, Tensor], *, run: int = 0) -> PointErrors:
    """Statistics over the tasks of one run."""
    return PointErrors(*(Errors(*(statistic(errors[name][run, :, i]) for i in (0, 1))) for name in PointErrors._fields))


def statistic(values: Tensor) -> Statistic:
    """Mean, 1.96 s / sqrt(n) and median of one number for each task; what overflowed counts as infinite."""
    values = values.double().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    count, ordered = len(values), values.sort().values
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return Statistic(values.mean().item(), 1.96 * values.std().item() / math.sqrt(count), median.item())


def aggregate_seeds(found: Sequence[PointErrors]) -> PointErrors:
    """Of the runs of several seeds: the mean of their means, its 95 % interval by Student's t, the mean of medians."""
    if len(found) == 1:
        return found[0]

    def joined(values: Sequence[Statistic]) -> Statistic:
        means = [value.mean for value in values]
        return Statistic(mean(means), t_interval(means), mean([value.median for value in values]))

    return PointErrors(
        *(
            Errors(*(joined([getattr(getattr(one, name), measure) for one in found]) for measure in Errors._fields))
            for name in PointErrors._fields
        )
    )


def mean(values: Sequence[float]) -> float:
    """The plain mean."""
    return sum(values) / len(values)


def t_interval(values: Sequence[float]) -> float:
    """Half the 95 % interval of the mean of a few values, one for each seed, by Student's t: t s / sqrt(n)."""
    if not all(math.isfinite(value) for value in values):
        return math.inf
    return student_t(len(values) - 1) * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def student_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: exact for 1 and 2, else by the expansion of Abramowitz and Stegun 26.7.5."""
    if freedom == 1:
        return math.tan(0.475 * math.pi)
    if freedom == 2:
        return 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))
    z = NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / math.pow(freedom, power) for power, term in enumerate(terms, start=1))


def finite_or_none(value: float) -> float | None:
    """The number, or None (null in JSON) where it overflowed."""
    return value if math.isfinite(value) else None


def _chunks(bank: TestTasks, like: Tensor) -> Iterator[tuple[Points, dict[str, Points]]]:
    def cut(split: Points, start: int) -> Points:
        return Points(*(part[:, start : start + CHUNK].to(like.device, like.dtype) for part in split))

    for start in range(0, bank.support.x.shape[-3], CHUNK):
        yield cut(bank.support, start), {name: cut(split, start) for name, split in bank.points.items()}


def _point_errors(predict: Predict, params: Params, points: Mapping[str, Points]) -> dict[str, Tensor]:
    return {name: _mean_errors(residual(predict(params, split.x), split.y)) for name, split in points.items()}


def _predictor_errors(bank: TestTasks, for_mse: Predictor, for_mae: Predictor) -> PointErrors:
    errors = {}
    for name, split in bank.points.items():
        squared, absolute = (_mean_errors(answer(split.x) - split.y) for answer in (for_mse, for_mae))
        errors[name] = torch.stack([squared[..., 0], absolute[..., 1]], dim=-1)
    return summarise_tasks(errors)


def _mean_errors(error: Tensor) -> Tensor:
    """(R, B, K, 1) -> (R, B, 2): the mean squared and the mean absolute error of each task."""
    return torch.stack([(error * error).mean(dim=(-2, -1)), error.abs().mean(dim=(-2, -1))], dim=-1).cpu()
