"""Sums of two sinusoids, the second of twice the frequency by default."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maml_cli.formulas.family import Distributions, Family
from maml_cli.formulas.waves import mean_of_sine

if TYPE_CHECKING:
    from torch import Tensor


def _function(
    x: "Tensor",
    amplitude: "Tensor",
    frequency: "Tensor",
    phase: "Tensor",
    amplitude2: "Tensor",
    frequency2: "Tensor",
    phase2: "Tensor",
) -> "Tensor":
    return amplitude * (frequency * x - phase).sin() + amplitude2 * (frequency2 * x - phase2).sin()


def _mean(x: "Tensor", distributions: Distributions) -> "Tensor":
    names = [*HARMONIC.parameters]
    first, second = ([distributions[name] for name in names[start : start + 3]] for start in (0, 3))
    return mean_of_sine(x, *first) + mean_of_sine(x, *second)


def _features(x: "Tensor", frequency: "Tensor", frequency2: "Tensor", **others: "Tensor") -> "Sequence[Tensor]":
    angles = [frequency * x, frequency2 * x]
    return [wave for angle in angles for wave in (angle.sin(), angle.cos())]


HARMONIC = Family(
    _function,
    {
        "amplitude": (0.1, 5.0),
        "frequency": 1.0,
        "phase": (0.0, 2 * math.pi),
        "amplitude2": (0.1, 2.5),
        "frequency2": 2.0,
        "phase2": (0.0, 2 * math.pi),
    },
    "sums of two sinusoids",
    "amplitude",
    _mean,
    _features,
)
