"""Sawtooth waves."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maml_cli.formulas.distributions import Uniform
from maml_cli.formulas.family import Distributions, Family

if TYPE_CHECKING:
    from torch import Tensor


def _wave(x: "Tensor", frequency: "Tensor", phase: "Tensor") -> "Tensor":
    """A ramp from -1 to 1 over each period, from frequency * x = phase on."""
    periods = (frequency * x - phase) / (2 * math.pi)
    return 2 * (periods - periods.floor()) - 1


def _mean(x: "Tensor", distributions: Distributions) -> "Tensor | None":
    """For one frequency and a uniform phase: 2 pi (u^2 - u) is the integral of the ramp 2 u - 1 over u = p / (2 pi)."""
    amplitude, frequency, phase, offset = (distributions[name] for name in SAWTOOTH.parameters)
    if frequency.variance or not isinstance(phase, Uniform):
        return None
    if phase.low == phase.high:
        wave = _wave(x, frequency.mean + 0 * x, phase.low + 0 * x)
    else:
        shares = [(_wave(x, frequency.mean + 0 * x, end + 0 * x) + 1) / 2 for end in phase]
        ends = [2 * math.pi * (share**2 - share) for share in shares]
        wave = (ends[0] - ends[1]) / (phase.high - phase.low)
    return amplitude.mean * wave + offset.mean


def _function(x: "Tensor", amplitude: "Tensor", frequency: "Tensor", phase: "Tensor", offset: "Tensor") -> "Tensor":
    return amplitude * _wave(x, frequency, phase) + offset


def _features(x: "Tensor", frequency: "Tensor", phase: "Tensor", **others: "Tensor") -> "Sequence[Tensor]":
    return [_wave(x, frequency, phase), 0 * x + 1]


SAWTOOTH = Family(
    _function,
    {"amplitude": (0.1, 5.0), "frequency": 1.0, "phase": (0.0, math.pi), "offset": 0.0},
    "sawtooth waves: a ramp from -amplitude to amplitude over each period, from frequency * x = phase on; + offset",
    "amplitude",
    _mean,
    _features,
)
