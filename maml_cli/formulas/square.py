"""Square waves."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maml_cli.formulas.distributions import Uniform
from maml_cli.formulas.family import Distributions, Family

if TYPE_CHECKING:
    from torch import Tensor


def _wave(x: "Tensor", frequency: "Tensor", phase: "Tensor") -> "Tensor":
    """1 where sin(frequency * x - phase) is not negative, else -1."""
    return 2 * ((frequency * x - phase).sin() >= 0) - 1


def _function(x: "Tensor", amplitude: "Tensor", frequency: "Tensor", phase: "Tensor", offset: "Tensor") -> "Tensor":
    return amplitude * _wave(x, frequency, phase) + offset


def _mean(x: "Tensor", distributions: Distributions) -> "Tensor | None":
    """For one frequency and a uniform phase: arccos(cos(p)) is the integral of sign(sin(p))."""
    amplitude, frequency, phase, offset = (distributions[name] for name in SQUARE.parameters)
    if frequency.variance or not isinstance(phase, Uniform):
        return None
    if phase.low == phase.high:
        wave = _wave(x, frequency.mean + 0 * x, phase.low + 0 * x)
    else:
        ends = [(frequency.mean * x - end).cos().acos() for end in phase]
        wave = (ends[0] - ends[1]) / (phase.high - phase.low)
    return amplitude.mean * wave + offset.mean


def _features(x: "Tensor", frequency: "Tensor", phase: "Tensor", **others: "Tensor") -> "Sequence[Tensor]":
    return [_wave(x, frequency, phase).to(x), 0 * x + 1]


SQUARE = Family(
    _function,
    {"amplitude": (0.1, 5.0), "frequency": 1.0, "phase": (0.0, math.pi), "offset": 0.0},
    "square waves: amplitude * sign(sin(frequency * x - phase)) + offset",
    "amplitude",
    _mean,
    _features,
)
