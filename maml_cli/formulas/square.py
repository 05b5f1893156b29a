"""Square waves."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maml_cli.formulas.family import Distributions, Family
from maml_cli.formulas.waves import mean_over_phase

if TYPE_CHECKING:
    from torch import Tensor


def _wave(position: "Tensor") -> "Tensor":
    """1 where the sine of `position` is not negative, else -1."""
    return 2 * (position.sin() >= 0).to(position) - 1


def _integral(position: "Tensor") -> "Tensor":
    """arccos(cos(position)), whose derivative is the sign of the sine."""
    return position.cos().acos()


def _function(x: "Tensor", amplitude: "Tensor", frequency: "Tensor", phase: "Tensor", offset: "Tensor") -> "Tensor":
    return amplitude * _wave(frequency * x - phase) + offset


def _mean(x: "Tensor", distributions: Distributions) -> "Tensor | None":
    amplitude, frequency, phase, offset = (distributions[name] for name in SQUARE.parameters)
    mean = mean_over_phase(x, frequency, phase, wave=_wave, integral=_integral)
    return None if mean is None else amplitude.mean * mean + offset.mean


def _features(x: "Tensor", frequency: "Tensor", phase: "Tensor", **others: "Tensor") -> "Sequence[Tensor]":
    return [_wave(frequency * x - phase), 0 * x + 1]


SQUARE = Family(
    _function,
    {"amplitude": (0.1, 5.0), "frequency": 1.0, "phase": (0.0, math.pi), "offset": 0.0},
    "square waves: amplitude * sign(sin(frequency * x - phase)) + offset",
    "amplitude",
    _mean,
    _features,
)
