"""Evaluation: the errors of a learner, after each inner step, on a fixed bank of tasks that training never sees.

Shapes: R runs, B tasks (here: of the bank), K points; errors are (R, B), one number a task.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli import baselines
from maml_cli.algorithms import Algorithm
from maml_cli.baselines import Answer
from maml_cli.experiment import Experiment
from maml_cli.losses import residual
from maml_cli.meta import Meta, per_task
from maml_cli.model import Params, Predict
from maml_cli.tasks import SineFamily, Sinusoids, Split, generator

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
    """The result of one evaluation at one K; `steps` holds one entry for each inner step, from 0."""

    shots: int
    num_tasks: int
    seed: int
    trained_steps: int
    steps: list[PointErrors]
    baselines: Baselines


class Bank(NamedTuple):
    """Test tasks: what each may adapt on, the noise-free points it is judged by, and the truth; in float64."""

    support: Split
    points: dict[str, Split]
    truth: Sinusoids

    def with_inputs(self, inputs: Callable[[Split, Sinusoids], Split]) -> "Bank":
        """The same tasks as a network sees them of which `inputs` makes the inputs."""
        points = {name: inputs(split, self.truth) for name, split in self.points.items()}
        return Bank(inputs(self.support, self.truth), points, self.truth)


def make_bank(family: SineFamily, *, seed: int, purpose: str, num_tasks: int, num_shots: int) -> Bank:
    """A bank of `num_tasks` tasks with K = `num_shots` support points, the same for the same arguments.

    The tasks are the same for every K. Support targets have the family's noise, if any; the truth that errors are
    measured against, on the grid and on K fresh points, has none.
    """
    stream = generator(seed, purpose)
    batch = family.sample(
        [stream], num_tasks=num_tasks, num_support=num_shots, num_query=num_shots, dtype=torch.float64
    )
    grid = torch.linspace(*family.x, NUM_GRID, dtype=torch.float64).reshape(NUM_GRID, 1)
    grid = grid.expand(1, num_tasks, NUM_GRID, 1)
    points = {"grid": grid, "query": batch.query.x}
    splits = {name: Split(x, batch.truth(x)) for name, x in points.items()}
    return Bank(batch.support, splits | {"support": batch.support}, batch.truth)


@torch.no_grad()
def adapted_errors(
    algorithm: Algorithm,
    predict: Predict,
    bank: Bank,
    metas: Callable[[int], Meta],
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


def learner_errors(experiment: Experiment, meta: Meta, bank: Bank, *, steps: int) -> list[dict[str, Tensor]]:
    """Errors of what `experiment` learned after 0, 1, ..., `steps` inner steps on the tasks of `bank`."""
    return adapted_errors(
        experiment.algorithm,
        experiment.predict,
        bank.with_inputs(experiment.inputs),
        lambda count: per_task(meta, count),
        steps=steps,
        like=next(iter(meta.params.values())),
    )


def evaluate(
    experiment: Experiment, meta: Meta, *, num_shots: int, num_tasks: int, seed: int, steps: int, trained_steps: int
) -> Evaluation:
    """Adapt to the test bank of `seed` and report errors after every step 0..`steps`, with the baselines beside.

    The baseline `random_init` adapts fresh untrained parameters for each task by the same rule.
    """
    family = experiment.family
    bank = make_bank(family, seed=seed, purpose="test", num_tasks=num_tasks, num_shots=num_shots)
    stream = generator(seed, "random-init")

    def untrained(count: int) -> Meta:
        params = {key: value.unsqueeze(0) for key, value in experiment.init_params(stream, count).items()}
        return Meta(params, per_task(meta, count).rule)

    def fitted(frequency: Tensor) -> PointErrors:
        answer = baselines.least_squares(family, bank.support, frequency)
        return _answer_errors(bank, answer, answer)

    random = adapted_errors(
        experiment.algorithm,
        experiment.predict,
        bank.with_inputs(experiment.inputs),
        untrained,
        steps=steps,
        like=next(iter(meta.params.values())),
    )
    varies = family.frequency[0] < family.frequency[1]
    return Evaluation(
        num_shots,
        num_tasks,
        seed,
        trained_steps,
        steps=[summarise(errors) for errors in learner_errors(experiment, meta, bank, steps=steps)],
        baselines=Baselines(
            zero=_answer_errors(bank, baselines.zero, baselines.zero),
            best_unadapted=_answer_errors(
                bank, baselines.conditional_mean(family), baselines.conditional_median(family)
            ),
            random_init=[summarise(errors) for errors in random],
            least_squares=fitted(bank.truth.frequency),
            least_squares_any_frequency=fitted(baselines.best_frequency(family, bank.support)) if varies else None,
        ),
    )


def summarise(errors: Mapping[str, Tensor], *, run: int = 0) -> PointErrors:
    """Statistics over the tasks of one run."""
    return PointErrors(*(Errors(*(statistic(errors[name][run, :, i]) for i in (0, 1))) for name in PointErrors._fields))


def statistic(values: Tensor) -> Statistic:
    """Mean, 1.96 s / sqrt(n) and median of one number for each task; what overflowed counts as infinite."""
    values = values.double().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    count, ordered = len(values), values.sort().values
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return Statistic(values.mean().item(), 1.96 * values.std().item() / math.sqrt(count), median.item())


def finite(value: float) -> float | None:
    """The number, or None (null in JSON) where it overflowed."""
    return value if math.isfinite(value) else None


def _chunks(bank: Bank, like: Tensor) -> Iterator[tuple[Split, dict[str, Split]]]:
    def cut(split: Split, start: int) -> Split:
        return Split(*(part[:, start : start + CHUNK].to(like.device, like.dtype) for part in split))

    for start in range(0, bank.support.x.shape[-3], CHUNK):
        yield cut(bank.support, start), {name: cut(split, start) for name, split in bank.points.items()}


def _point_errors(predict: Predict, params: Params, points: Mapping[str, Split]) -> dict[str, Tensor]:
    return {name: _mean_errors(residual(predict(params, split.x), split.y)) for name, split in points.items()}


def _answer_errors(bank: Bank, for_mse: Answer, for_mae: Answer) -> PointErrors:
    errors = {}
    for name, split in bank.points.items():
        squared, absolute = (_mean_errors(answer(split.x) - split.y) for answer in (for_mse, for_mae))
        errors[name] = torch.stack([squared[..., 0], absolute[..., 1]], dim=-1)
    return summarise(errors)


def _mean_errors(error: Tensor) -> Tensor:
    """(R, B, K, 1) -> (R, B, 2): the mean squared and the mean absolute error of each task."""
    return torch.stack([(error * error).mean(dim=(-2, -1)), error.abs().mean(dim=(-2, -1))], dim=-1).cpu()
