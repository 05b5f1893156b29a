"""Parabolas, as in the multimodal benchmark of MMAML (Vuorio et al. 2019, arXiv:1910.13616)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maml_cli.formulas.family import Distributions, Family

if TYPE_CHECKING:
    from torch import Tensor


def _function(x: "Tensor", curvature: "Tensor", sign: "Tensor", center: "Tensor", offset: "Tensor") -> "Tensor":
    return curvature * (2 * (sign > 0) - 1) * (x - center) ** 2 + offset


def _mean(x: "Tensor", distributions: Distributions) -> "Tensor":
    """E[curvature] E[+-1] ((x - E[center])^2 + var(center)) + E[offset]."""
    curvature, sign, center, offset = (distributions[name] for name in QUADRATIC.parameters)
    factor = curvature.mean * (2 * sign.share_above_zero() - 1)
    return factor * ((x - center.mean) ** 2 + center.variance) + offset.mean


def _features(x: "Tensor", **others: "Tensor") -> "Sequence[Tensor]":
    return [x**2, x, 0 * x + 1]


QUADRATIC = Family(
    _function,
    {"curvature": (0.02, 0.15), "sign": (-1.0, 1.0), "center": (-3.0, 3.0), "offset": (-3.0, 3.0)},
    "parabolas: +-curvature * (x - center)^2 + offset, of the sign of the parameter sign",
    "curvature",
    _mean,
    _features,
)
