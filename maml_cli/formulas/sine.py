"""Sinusoids (Finn et al. 2017, arXiv:1703.03400, section 5.1)."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maml_cli.formulas.family import Distributions, Family
from maml_cli.formulas.waves import mean_of_sine

if TYPE_CHECKING:
    from torch import Tensor


def _function(x: "Tensor", amplitude: "Tensor", frequency: "Tensor", phase: "Tensor", offset: "Tensor") -> "Tensor":
    return amplitude * (frequency * x - phase).sin() + offset


def _mean(x: "Tensor", distributions: Distributions) -> "Tensor":
    *wave, offset = (distributions[name] for name in SINE.parameters)
    return mean_of_sine(x, *wave) + offset.mean


def _features(x: "Tensor", frequency: "Tensor", **others: "Tensor") -> "Sequence[Tensor]":
    return [(frequency * x).sin(), (frequency * x).cos(), 0 * x + 1]


SINE = Family(
    _function,
    {"amplitude": (0.1, 5.0), "frequency": 1.0, "phase": (0.0, math.pi), "offset": 0.0},
    "sinusoids: amplitude * sin(frequency * x - phase) + offset",
    "amplitude",
    _mean,
    _features,
)
