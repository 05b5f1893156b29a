"""Sawtooth waves."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maml_cli.formulas.family import Distributions, Family
from maml_cli.formulas.waves import mean_over_phase

if TYPE_CHECKING:
    from torch import Tensor


def _wave(position: "Tensor") -> "Tensor":
    """A ramp from -1 to 1 over each period of 2 pi, from 0 on."""
    periods = position / (2 * math.pi)
    return 2 * (periods - periods.floor()) - 1


def _integral(position: "Tensor") -> "Tensor":
    """2 pi (u^2 - u) of the share u of the period, whose derivative is the ramp 2 u - 1."""
    share = (_wave(position) + 1) / 2
    return 2 * math.pi * (share**2 - share)


def _function(x: "Tensor", amplitude: "Tensor", frequency: "Tensor", phase: "Tensor", offset: "Tensor") -> "Tensor":
    return amplitude * _wave(frequency * x - phase) + offset


def _mean(x: "Tensor", distributions: Distributions) -> "Tensor | None":
    amplitude, frequency, phase, offset = (distributions[name] for name in SAWTOOTH.parameters)
    mean = mean_over_phase(x, frequency, phase, wave=_wave, integral=_integral)
    return None if mean is None else amplitude.mean * mean + offset.mean


def _features(x: "Tensor", frequency: "Tensor", phase: "Tensor", **others: "Tensor") -> "Sequence[Tensor]":
    return [_wave(frequency * x - phase), 0 * x + 1]


SAWTOOTH = Family(
    _function,
    {"amplitude": (0.1, 5.0), "frequency": 1.0, "phase": (0.0, math.pi), "offset": 0.0},
    "sawtooth waves: a ramp from -amplitude to amplitude over each period, from frequency * x = phase on; + offset",
    "amplitude",
    _mean,
    _features,
)
