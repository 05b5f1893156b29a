"""Distributions of a task's parameters: uniform on a range, or normal."""

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

MOST = 1e6
"""Largest magnitude of a parameter, of its mean and of its standard deviation: products of several are within
float32."""


class Uniform(NamedTuple):
    """The uniform distribution on [low, high]; the constant `low` where both are equal."""

    low: float
    high: float

    @property
    def mean(self) -> float:
        """The expectation."""
        return (self.low + self.high) / 2

    @property
    def variance(self) -> float:
        """The variance."""
        return (self.high - self.low) ** 2 / 12

    @property
    def extent(self) -> tuple[float, float]:
        """The interval that has all values."""
        return self.low, self.high

    def quantile(self, probability: "Tensor") -> "Tensor":
        """The value below which a share `probability`, in [0, 1), of all values is."""
        return probability * (self.high - self.low) + self.low

    def damping(self, factor: "Tensor") -> "Tensor":
        """E[cos(factor * (U - mean))], of the characteristic function: sin(z) / z at z = factor * width / 2."""
        return (factor * (self.high - self.low) / 2 / math.pi).sinc()

    def share_above_zero(self) -> float:
        """P(U > 0)."""
        if self.low == self.high:
            return float(self.low > 0)
        return min(max(self.high / (self.high - self.low), 0.0), 1.0)

    def distance(self, x: "Tensor") -> "Tensor":
        """E|x - U|: |x - mean| outside of the range, and ((x - low)^2 + (high - x)^2) / (2 width) inside."""
        if self.low == self.high:
            return (x - self.low).abs()
        inside = ((x - self.low) ** 2 + (self.high - x) ** 2) / (2 * (self.high - self.low))
        return inside.where((x > self.low) & (x < self.high), (x - self.mean).abs())


class Normal(NamedTuple):
    """The normal distribution with expectation `mean` and standard deviation `std`."""

    mean: float
    std: float

    @property
    def variance(self) -> float:
        """The variance."""
        return self.std**2

    @property
    def extent(self) -> tuple[float, float]:
        """The interval of four standard deviations around the mean, which has all but 1 in 16,000 values."""
        return self.mean - 4 * self.std, self.mean + 4 * self.std

    def quantile(self, probability: "Tensor") -> "Tensor":
        """The value below which a share `probability`, in [0, 1), of all values is; at 0 that of 2^-54."""
        return self.mean + self.std * math.sqrt(2) * (2 * probability - 1).clamp(min=2.0**-53 - 1).erfinv()

    def damping(self, factor: "Tensor") -> "Tensor":
        """E[cos(factor * (U - mean))], of the characteristic function: exp(-(factor * std)^2 / 2)."""
        return (-((factor * self.std) ** 2) / 2).exp()

    def share_above_zero(self) -> float:
        """P(U > 0)."""
        return (1 + math.erf(self.mean / (self.std * math.sqrt(2)))) / 2 if self.std else float(self.mean > 0)

    def distance(self, x: "Tensor") -> "Tensor":
        """E|x - U|, the mean of a folded normal distribution."""
        difference = x - self.mean
        if not self.std:
            return difference.abs()
        z = difference / (self.std * math.sqrt(2))
        return self.std * math.sqrt(2 / math.pi) * (-(z**2)).exp() + difference * z.erf()


Distribution = Uniform | Normal


def is_constant(distribution: Distribution) -> bool:
    """Whether all values are equal."""
    low, high = distribution.extent
    return not low < high


def as_distribution(value: object) -> Distribution:
    """The distribution that `value` writes: [low, high], a number, or {"normal": [mean, std]}; raises ValueError.

    >>> as_distribution([0, 1]), as_distribution(2.0), as_distribution({"normal": [0.5, 0.2]})
    (Uniform(low=0.0, high=1.0), Uniform(low=2.0, high=2.0), Normal(mean=0.5, std=0.2))
    """
    if isinstance(value, Uniform | Normal):
        return value
    if isinstance(value, dict) and value.keys() == {"normal"}:
        mean, std = _pair(value["normal"])
        if std < 0:
            raise ValueError("must have a standard deviation from 0")
        return Normal(mean, std)
    low, high = _pair(value if isinstance(value, list | tuple) else [value, value])
    if low > high:
        raise ValueError("must have its low end first")
    return Uniform(low, high)


def to_plain(distribution: Distribution) -> object:
    """The inverse of `as_distribution`: a number, [low, high], or {"normal": [mean, std]}."""
    if isinstance(distribution, Normal):
        return {"normal": [distribution.mean, distribution.std]}
    low, high = distribution
    return low if low == high else [low, high]


def _pair(value: object) -> tuple[float, float]:
    numbers = value if isinstance(value, list | tuple) else ()
    is_number = [isinstance(number, int | float) and not isinstance(number, bool) for number in numbers]
    if len(numbers) != 2 or not all(is_number) or not all(abs(number) <= MOST for number in numbers):
        raise ValueError(f"must be a number, [low, high], or {{normal: [mean, std]}}, within +-{MOST:g}")
    return float(numbers[0]), float(numbers[1])
