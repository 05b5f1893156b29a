"""Calibration of a predictive distribution: its negative log-likelihood, and the coverage of its intervals.

The distribution is that of a new target with its noise. Test targets without the noise of their tasks get it in
expectation, so that no random numbers are needed.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.adaptation import NORMAL_QUANTILE_975
from maml_cli.core import normal_nll
from maml_cli.evaluation.held_out import TestTasks
from maml_cli.evaluation.statistics import Statistic, aggregate_seeds

HALF_WIDTHS = {"coverage_95": NORMAL_QUANTILE_975, "coverage_50": 0.6744897501960817}
"""Half the widths of intervals around the mean, in standard deviations, which cover 95 % and 50 % of a normal
distribution."""


class Calibration(NamedTuple):
    """Statistics over tasks of a predictive distribution on the grid, after an inner step.

    nll: negative log-likelihood per point, in nats.
    coverage_95, coverage_50: share of the points within the 95 % and within the 50 % interval.
    """

    nll: Statistic
    coverage_95: Statistic
    coverage_50: Statistic


@dataclass
class CalibrationByTask:
    """The calibration on each task so far; `add` mutates it.

    noise: standard deviation of the noise that the targets of each task lack, (B, 1, 1).
    scores: for each inner step those of some tasks at a time, (3, R, tasks) in the order of Calibration.
    """

    noise: Tensor
    scores: list[list[Tensor]] = field(default_factory=list)

    def add(self, step: int, predictions: Tensor, targets: Tensor, variance: Tensor) -> None:
        """Add some tasks after inner step `step`, all of (R, B, K, 1)."""
        self.scores += [[]] if step == len(self.scores) else []
        start = sum(scores.shape[-1] for scores in self.scores[step])
        noise = self.noise[start : start + predictions.shape[1]]
        error, variance = ((predictions - targets).cpu().double(), variance.cpu().double())
        self.scores[step].append(calibration_scores(error, variance, noise).to(predictions.dtype))

    def statistics(self, runs: list[int]) -> list[Calibration]:
        """The statistics after 0, 1, ... inner steps, over the tasks and the `runs`, given by their indices."""
        by_step = [torch.cat(scores, dim=-1)[:, runs] for scores in self.scores]
        return [Calibration(*map(aggregate_seeds, scores)) for scores in by_step]

    def mean_nll(self, runs: list[int]) -> Tensor:
        """The negative log-likelihood of each task, mean over `runs`, after 0, 1, ... inner steps, (S + 1, B)."""
        return torch.stack([torch.cat(scores, dim=-1)[0, runs].double().mean(dim=0) for scores in self.scores])


def new_calibration(test_tasks: TestTasks) -> CalibrationByTask:
    """The calibration before the first task."""
    noise = [block.missing_noise.expand(*block.points["grid"].y.shape[:2], 1, 1) for block in test_tasks.iter_blocks()]
    return CalibrationByTask(torch.cat(noise, dim=1)[0])


def calibration_scores(error: Tensor, variance: Tensor, noise: Tensor) -> Tensor:
    """The negative log-likelihood and the coverages of each task, (3, R, B); infinite and 0 for what is not finite.

    error: predictions less targets, (R, B, K, 1).
    variance: of the predictive distribution, (R, B, K, 1).
    noise: standard deviation of the noise that the targets lack, (B, 1, 1), of which the scores are expectations.
    """
    nll = normal_nll(error.square() + noise.square(), variance)
    widths = [half_width * variance.sqrt() for half_width in HALF_WIDTHS.values()]
    scale = noise.clamp(min=torch.finfo(noise.dtype).tiny)
    covered = [torch.special.ndtr((w - error) / scale) - torch.special.ndtr((-w - error) / scale) for w in widths]
    means = torch.stack([values.mean(dim=(-2, -1)) for values in (nll, *covered)])
    means[0].nan_to_num_(nan=torch.inf, posinf=torch.inf)
    means[1:].nan_to_num_(nan=0.0)
    return means
