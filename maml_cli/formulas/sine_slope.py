"""Sinusoids with a slope, of normal parameters, as in PACOH (Rothfuss et al. 2021, arXiv:2002.05551)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maml_cli.formulas.distributions import Normal
from maml_cli.formulas.family import Distributions, Family
from maml_cli.formulas.waves import mean_of_sine

if TYPE_CHECKING:
    from torch import Tensor


def _function(
    x: "Tensor", slope: "Tensor", amplitude: "Tensor", frequency: "Tensor", phase: "Tensor", offset: "Tensor"
) -> "Tensor":
    return slope * x + amplitude * (frequency * x - phase).sin() + offset


def _mean(x: "Tensor", distributions: Distributions) -> "Tensor":
    slope, *wave, offset = (distributions[name] for name in SINE_SLOPE.parameters)
    return slope.mean * x + mean_of_sine(x, *wave) + offset.mean


def _features(x: "Tensor", frequency: "Tensor", **others: "Tensor") -> "Sequence[Tensor]":
    return [(frequency * x).sin(), (frequency * x).cos(), x, 0 * x + 1]


SINE_SLOPE = Family(
    _function,
    {
        "slope": Normal(0.5, 0.2),
        "amplitude": (0.7, 1.3),
        "frequency": 1.5,
        "phase": Normal(0.0, 0.15),  # the shift of x of PACOH, N(0, 0.1), times the frequency
        "offset": Normal(5.0, 0.1),
    },
    "sinusoids with a slope: slope * x + amplitude * sin(frequency * x - phase) + offset",
    "amplitude",
    _mean,
    _features,
)
