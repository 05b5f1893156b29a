"""Hyperbolic tangents, as in the multimodal benchmark of MMAML (Vuorio et al. 2019, arXiv:1910.13616)."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maml_cli.formulas.distributions import Uniform
from maml_cli.formulas.family import Distributions, Family

if TYPE_CHECKING:
    from torch import Tensor


def _function(x: "Tensor", amplitude: "Tensor", center: "Tensor", offset: "Tensor") -> "Tensor":
    return amplitude * (x - center).tanh() + offset


def _mean(x: "Tensor", distributions: Distributions) -> "Tensor | None":
    """E[amplitude] E[tanh(x - center)] + E[offset]; of a uniform center, log cosh is the integral of tanh."""
    amplitude, center, offset = (distributions[name] for name in TANH.parameters)
    if amplitude.mean == 0:
        return 0 * x + offset.mean
    if not isinstance(center, Uniform):
        return None
    if center.low == center.high:
        return amplitude.mean * (x - center.low).tanh() + offset.mean
    integral = _log_cosh(x - center.low) - _log_cosh(x - center.high)
    return amplitude.mean * integral / (center.high - center.low) + offset.mean


def _log_cosh(x: "Tensor") -> "Tensor":
    """log(cosh(x)) = |x| + log(1 + exp(-2 |x|)) - log 2, which does not overflow."""
    return x.abs() + (-2 * x.abs()).exp().log1p() - math.log(2)


def _features(x: "Tensor", center: "Tensor", **others: "Tensor") -> "Sequence[Tensor]":
    return [(x - center).tanh(), 0 * x + 1]


TANH = Family(
    _function,
    {"amplitude": (-3.0, 3.0), "center": (-3.0, 3.0), "offset": (-3.0, 3.0)},
    "hyperbolic tangents: amplitude * tanh(x - center) + offset",
    "amplitude",
    _mean,
    _features,
)
