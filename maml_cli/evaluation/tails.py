"""The distribution of errors over tasks beyond mean and median: percentiles, worst tasks, and tasks that diverged."""

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

DIVERGED = 100.0
"""Multiple of the mean error of predicting zero beyond which a task counts as diverged."""


class Tail(NamedTuple):
    """The upper end of the distribution of one number for each task, such as its error.

    percentile_90, percentile_99: percentiles over tasks, by linear interpolation between order statistics (type 7 of
        Hyndman and Fan 1996); with several seeds, the mean of theirs.
    worst: the largest value of a task; with several seeds, of any of them.
    worst_10_percent_mean: mean of the worst tenth of the tasks, B // 10 of them and at least one (conditional value at
        risk); with several seeds, the mean of theirs.
    num_diverged: number of tasks that diverged: not finite, or beyond DIVERGED times the mean error of predicting zero
        on all the test tasks; with several seeds, the sum over them.
    mean_without_diverged: mean of the other tasks; with several seeds, the mean of theirs. None if no task diverged, or
        if all did.
    worst_1_percent_share: share of the worst B // 100 tasks in the mean, from 0 to 1; with several seeds, of each
        task's mean over seeds. None for fewer than 100 tasks, and where the mean is 0 or not finite.
    tasks_for_10_percent_interval: number of test tasks for a 95 % interval of ±10 % of the mean: (1.96 s / (0.1
        mean))^2, rounded, s the standard deviation over these tasks; with several seeds, of each task's mean over
        seeds. None where the mean is 0 or not finite.
    """

    percentile_90: float
    percentile_99: float
    worst: float
    worst_10_percent_mean: float
    num_diverged: int
    mean_without_diverged: float | None
    worst_1_percent_share: float | None
    tasks_for_10_percent_interval: int | None


def tail_of_tasks(ordered: Tensor, *, mean: float, ci95: float, limit: float) -> Tail:
    """The tail of (B,), numbers in ascending order without NaN, with their mean and the half width of its interval.

    limit: a task diverged if its number is above; 0 for infinite numbers alone.
    """
    count = len(ordered)
    num_kept = int((ordered <= min(limit or math.inf, sys.float_info.max)).sum())
    has_interval = 0 < mean < math.inf and math.isfinite(ci95)
    return Tail(
        percentile(ordered, 0.9),
        percentile(ordered, 0.99),
        ordered[-1].item(),
        ordered[-max(1, count // 10) :].mean().item(),
        count - num_kept,
        ordered[:num_kept].mean().item() if 0 < num_kept < count else None,
        worst_1_percent_share(ordered),
        round(count * (ci95 / (0.1 * mean)) ** 2) if has_interval else None,
    )


def tail_of_seeds(tails: Sequence[Tail], means: Sequence[float], of_means: Tail) -> Tail:
    """The tail over several seeds, from that of each, its mean over tasks, and the tail of each task's mean."""
    pairs = zip(tails, means, strict=True)
    finite_means = [tail.mean_without_diverged if tail.num_diverged else mean for tail, mean in pairs]
    known = [value for value in finite_means if value is not None]
    num_diverged = sum(tail.num_diverged for tail in tails)
    return Tail(
        _mean([tail.percentile_90 for tail in tails]),
        _mean([tail.percentile_99 for tail in tails]),
        max(tail.worst for tail in tails),
        _mean([tail.worst_10_percent_mean for tail in tails]),
        num_diverged,
        _mean(known) if num_diverged and known else None,
        of_means.worst_1_percent_share,
        of_means.tasks_for_10_percent_interval,
    )


def worst_1_percent_share(ordered: Tensor) -> float | None:
    """The share of the worst B // 100 numbers in the sum of (B,), in ascending order, without NaN; None for fewer than
    100, and where the sum is 0 or not finite."""
    count, total = len(ordered), ordered.sum().item()
    return ordered[-(count // 100) :].sum().item() / total if count >= 100 and 0 < total < math.inf else None


def percentile(ordered: Tensor, share: float) -> float:
    """The value below which a `share` of (B,), in ascending order, lies; linear between the two nearest of them."""
    position = share * (len(ordered) - 1)
    low, high = (ordered[end].item() for end in (math.floor(position), math.ceil(position)))
    weight = position - math.floor(position)
    return low if weight == 0 or low == high else (1 - weight) * low + weight * high


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
