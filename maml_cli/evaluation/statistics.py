"""Statistics of errors: means over tasks and over seeds, their 95 % intervals, and medians."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor


class Statistic(NamedTuple):
    """A summary of one number for each task, such as its error.

    mean: mean over tasks; with several seeds, the mean of their means.
    ci95: half width of the 95 % interval of the mean over tasks; with several seeds, of each task's mean over seeds:
        the scatter of tasks, for the learner as for the baselines.
    median: median over tasks; with several seeds, the mean of their medians.
    ci95_seeds: half width of the 95 % interval of the mean over seeds, by Student's t; None for a single seed, and for
        what does not depend on the seed of training, such as a baseline.
    """

    mean: float
    ci95: float
    median: float
    ci95_seeds: float | None = None


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


def summarise_tasks(errors: Mapping[str, Tensor], *, run: int = 0) -> PointErrors:
    """Statistics over the tasks of one run, from (R, B, 2): the MSE and the MAE of each task, by name of the points."""
    return summarise_runs(errors, [run])


def summarise_runs(errors: Mapping[str, Tensor], runs: Sequence[int]) -> PointErrors:
    """Statistics over the tasks and seeds of several runs, given by their indices."""
    return PointErrors(
        *(
            Errors(*(aggregate_seeds(errors[name][list(runs), :, measure]) for measure in range(len(Errors._fields))))
            for name in PointErrors._fields
        )
    )


def statistic(values: Tensor) -> Statistic:
    """Mean, 1.96 s / sqrt(B) and median of (B,), one number for each task; NaN counts as infinite."""
    values = values.double().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    count, ordered = len(values), values.sort().values
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return Statistic(values.mean().item(), 1.96 * values.std().item() / math.sqrt(count), median.item())


def aggregate_seeds(values: Tensor) -> Statistic:
    """The statistic of (seeds, B), one number for each seed and task; see the fields of Statistic."""
    if len(values) == 1:
        return statistic(values[0])
    by_seed = [statistic(row) for row in values]
    means = [value.mean for value in by_seed]
    over_tasks = statistic(values.double().mean(dim=0))
    return Statistic(mean(means), over_tasks.ci95, mean([value.median for value in by_seed]), t_interval(means))


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
