"""Statistics of errors: means over tasks and over seeds, their 95 % intervals, medians and tails."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from maml_cli.evaluation.tails import Tail, tail_of_seeds, tail_of_tasks

Limits = Mapping[str, Sequence[float]]
"""Name of the points -> the squared and the absolute error of a task above which it counts as diverged."""


class Statistic(NamedTuple):
    """A summary of one number for each task, such as its error.

    mean: mean over tasks; with several seeds, the mean of their means.
    ci95: half width of the 95 % interval of the mean over tasks; with several seeds, of each task's mean over seeds:
        the scatter of tasks, for the learner as for the baselines.
    median: median over tasks; with several seeds, the mean of their medians.
    ci95_seeds: half width of the 95 % interval of the mean over seeds, by Student's t; None for a single seed, and for
        what does not depend on the seed of training, such as a baseline.
    tail: percentiles and worst tasks; None for what is no error of an evaluation, such as a difference.
    """

    mean: float
    ci95: float
    median: float
    ci95_seeds: float | None = None
    tail: Tail | None = None


class Errors(NamedTuple):
    """Errors of each task's points.

    mse: statistic of the mean squared error.
    mae: statistic of the mean absolute error.
    """

    mse: Statistic
    mae: Statistic


class PointErrors(NamedTuple):
    """Errors on the points of test tasks.

    grid: on the equally spaced grid over the range of x, noise-free.
    query: on fresh random points, noise-free.
    support: on the support points, with their noise.
    """

    grid: Errors
    query: Errors
    support: Errors


def summarise_tasks(errors: Mapping[str, Tensor], *, run: int = 0, limits: Limits | None = None) -> PointErrors:
    """Statistics over the tasks of one run, from (R, B, 2): the MSE and the MAE of each task, by name of the points.

    They have a tail if there are `limits`.
    """
    return summarise_runs(errors, [run], limits=limits)


def summarise_runs(
    errors: Mapping[str, Tensor], runs: Sequence[int], *, limits: Limits | None = None, tasks: Tensor | None = None
) -> PointErrors:
    """Statistics over the tasks and seeds of several runs, given by their indices; of some tasks, if `tasks` has their
    indices, and with a tail if there are `limits`."""

    def of_measure(name: str, measure: int) -> Statistic:
        values = errors[name][list(runs), :, measure]
        limit = None if limits is None else limits[name][measure]
        return aggregate_seeds(values if tasks is None else values[:, tasks], limit=limit)

    num_measures = len(Errors._fields)
    return PointErrors(*(Errors(*(of_measure(name, i) for i in range(num_measures))) for name in PointErrors._fields))


def statistic(values: Tensor, *, limit: float | None = None) -> Statistic:
    """Mean, 1.96 s / sqrt(B) and median of (B,), one number for each task; NaN counts as infinite.

    With the `limit` above which a task counts as diverged, it has a tail. A single task has no finite interval.
    """
    values = values.double().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    count, ordered = len(values), values.sort().values
    average = values.mean().item()
    ci95 = 1.96 * values.std().item() / math.sqrt(count) if count > 1 else math.nan
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    tail = None if limit is None else tail_of_tasks(ordered, mean=average, ci95=ci95, limit=limit)
    return Statistic(average, ci95, median.item(), tail=tail)


def aggregate_seeds(values: Tensor, *, limit: float | None = None) -> Statistic:
    """The statistic of (seeds, B), one number for each seed and task; see the fields of Statistic and of Tail."""
    if len(values) == 1:
        return statistic(values[0], limit=limit)
    by_seed = [statistic(row, limit=limit) for row in values]
    means = [value.mean for value in by_seed]
    over_tasks = statistic(values.double().mean(dim=0), limit=limit)
    tails = [value.tail for value in by_seed if value.tail]
    tail = tail_of_seeds(tails, means, over_tasks.tail) if over_tasks.tail else None
    return Statistic(mean(means), over_tasks.ci95, mean([value.median for value in by_seed]), t_interval(means), tail)


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def t_interval(values: Sequence[float]) -> float:
    """Half the 95 % interval of the mean of a few values, one for each seed, by Student's t: t s / sqrt(n).

    Zero for a single value, infinite if a value is not finite.
    """
    if not all(math.isfinite(value) for value in values):
        return math.inf
    if len(values) == 1:
        return 0.0
    return student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def student_t(degrees_of_freedom: int) -> float:
    """The 97.5 % quantile of Student's t distribution."""
    from scipy.special import stdtrit  # 0.2 s to import

    return float(stdtrit(degrees_of_freedom, 0.975))


def finite_or_none(value: float) -> float | None:
    """The number, or None (null in JSON) if it is infinite or NaN."""
    return value if math.isfinite(value) else None
