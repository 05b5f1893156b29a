"""Outputs of an adapted learner: predictions of each seed, and bands around them.

Shapes: R runs (seeds trained side by side), N inputs, S inner steps.
"""

from typing import NamedTuple

from torch import Tensor

from maml_cli.errors import DataError

NORMAL_QUANTILE_95 = 1.6448536269514722
"""The 95 % quantile of the standard normal distribution: half the width of a 90 % band, in standard deviations."""

NORMAL_QUANTILE_975 = 1.9599639845400545
"""The 97.5 % quantile: half the width of a 95 % interval."""
INTERVAL = "95 % interval of new targets"
"""The name of the interval of a predictive distribution, in legends."""


class Band(NamedTuple):
    """A band around predictions.

    name: of the band, with the share of a normal distribution that it covers.
    low, high: its ends, (N,).
    """

    name: str
    low: Tensor
    high: Tensor


class Outputs(NamedTuple):
    """Outputs of each seed for the N inputs of all tasks, in float64 and the user's units.

    predictions: after 0, 1, ..., S inner steps, (S + 1, R, N).
    variances: of the predictive distribution after the last inner step, (R, N); None for a learner without one.
    """

    predictions: Tensor
    variances: Tensor | None

    def std(self) -> Tensor | None:
        """The standard deviation of new targets after the last inner step, (N,): of the mixture of the seeds' normal
        distributions."""
        if self.variances is None:
            return None
        return (self.variances.mean(dim=0) + self.predictions[-1].var(dim=0, correction=0)).sqrt()

    def band(self) -> Band | None:
        """The interval of new targets after the last inner step; without predictive distribution the band over seeds,
        and None for a single one."""
        std, last = self.std(), self.predictions[-1]
        if std is not None:
            return Band(INTERVAL, *interval_95(last.mean(dim=0), std))
        return Band("90 % band over seeds", *band_over_seeds(last)) if len(last) > 1 else None


def interval_95(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of the 95 % interval of normal distributions, (...) each."""
    return mean - NORMAL_QUANTILE_975 * std, mean + NORMAL_QUANTILE_975 * std


def band_over_seeds(predictions: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of a 90 % band, (...) each, from the predictions (R, ...) of R seeds; raises DataError for one seed."""
    if len(predictions) < 2:
        raise DataError("band: the run has one seed; a band needs several, such as those of run.seeds=8")
    half_width = NORMAL_QUANTILE_95 * predictions.std(dim=0)
    center = predictions.mean(dim=0)
    return center - half_width, center + half_width
