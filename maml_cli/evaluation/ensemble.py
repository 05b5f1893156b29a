"""Seeds as an ensemble: the errors of their mean prediction, and whether their spread covers the targets.

The predictions of the seeds at a point count as draws from a normal distribution with their mean and standard deviation
(deep ensembles, Lakshminarayanan et al. 2017, arXiv:1612.01474).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.adaptation import band_over_seeds


class MeanOverTasks(NamedTuple):
    """A mean over tasks.

    mean: the mean.
    ci95: half width of its 95 % interval over tasks; not finite where the mean is not.
    """

    mean: float
    ci95: float


class EnsembleErrors(NamedTuple):
    """Errors of an ensemble on the grid after an inner step.

    mse: mean squared error of the mean prediction.
    nll: negative log-likelihood per point under the normal distribution; infinite where all seeds predict the same at
        some point, so that the standard deviation is zero.
    coverage: share of the points within the 90 % band, mean ± 1.645 standard deviations.
    """

    mse: MeanOverTasks
    nll: MeanOverTasks
    coverage: MeanOverTasks


@dataclass
class EnsembleSums:
    """Sums over the tasks so far, so that memory does not grow with the number of tasks.

    runs: indices of the seeds on the run axis, two or more.
    sums: of the three errors of each task, and of their squares, (inner steps + 1, 2, 3).
    num_tasks: number of tasks so far.
    """

    runs: Sequence[int]
    sums: Tensor
    num_tasks: int = 0

    def add(self, step: int, predictions: Tensor, targets: Tensor, variance: Tensor) -> None:
        """Add the errors of some tasks after inner step `step`, of predictions and targets (R, B, K, 1).

        The spread of the seeds alone counts, not the `variance` of each.
        """
        runs = [*self.runs]
        by_task = ensemble_errors(predictions[runs].cpu().double(), targets[runs[0]].cpu().double())
        self.sums[step] += torch.stack([by_task.sum(dim=0), by_task.square().sum(dim=0)])
        self.num_tasks += len(by_task) if step == 0 else 0

    def errors(self) -> list[EnsembleErrors]:
        """The errors after 0, 1, ... inner steps."""
        return [
            EnsembleErrors(*(_mean(total, squares, self.num_tasks) for total, squares in step.mT.tolist()))
            for step in self.sums
        ]


def new_ensemble(runs: Sequence[int], steps: int) -> EnsembleSums | None:
    """Sums of zero for the seeds at the indices `runs`; None for a single one, which has no standard deviation."""
    return EnsembleSums(runs, torch.zeros(steps + 1, 2, 3, dtype=torch.float64)) if len(runs) > 1 else None


def ensemble_errors(predictions: Tensor, targets: Tensor) -> Tensor:
    """The squared error, the negative log-likelihood and the coverage of each task, (B, 3), from predictions
    (R, B, K, 1) and targets (B, K, 1); infinite, infinite and 0 for predictions that are not finite."""
    squared = (predictions.mean(dim=0) - targets).square()
    variance = predictions.var(dim=0)
    nll = 0.5 * (2 * math.pi * variance).log() + squared / (2 * variance)  # NaN, so infinite below, at a variance of 0
    low, high = band_over_seeds(predictions)
    covered = ((low <= targets) & (targets <= high)).double()
    means = [values.mean(dim=(-2, -1)) for values in (squared, nll, covered)]
    return torch.stack(means, dim=-1).nan_to_num(nan=math.inf, posinf=math.inf)


def _mean(total: float, total_of_squares: float, count: int) -> MeanOverTasks:
    mean = total / count
    if not math.isfinite(total_of_squares) or count < 2:
        return MeanOverTasks(mean, math.nan)
    variance = max(0.0, total_of_squares - count * mean * mean) / (count - 1)
    return MeanOverTasks(mean, 1.96 * math.sqrt(variance / count))
