"""Means of periodic functions over the distributions of their parameters."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from maml_cli.formulas.distributions import Distribution, Uniform

if TYPE_CHECKING:
    from torch import Tensor


def mean_of_sine(x: "Tensor", amplitude: Distribution, frequency: Distribution, phase: Distribution) -> "Tensor":
    """E[amplitude] E[sin(frequency * x - phase)]: of symmetric distributions, the sine at their means times both
    dampings."""
    wave = (frequency.mean * x - phase.mean).sin() * frequency.damping(x) * phase.damping(x.new_ones(()))
    return amplitude.mean * wave


def mean_over_phase(
    x: "Tensor",
    frequency: Distribution,
    phase: Distribution,
    *,
    wave: "Callable[[Tensor], Tensor]",
    integral: "Callable[[Tensor], Tensor]",
) -> "Tensor | None":
    """E[wave(frequency * x - phase)] for one frequency and a uniform phase, from an integral of the wave; None for
    other distributions."""
    if frequency.variance or not isinstance(phase, Uniform):
        return None
    first, last = (frequency.mean * x - end for end in phase)
    return wave(first) if phase.low == phase.high else (integral(first) - integral(last)) / (phase.high - phase.low)
