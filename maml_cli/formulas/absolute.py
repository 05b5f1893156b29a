"""Absolute values, as in the multimodal benchmark of MMAML (Vuorio et al. 2019, arXiv:1910.13616)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maml_cli.formulas.family import Distributions, Family

if TYPE_CHECKING:
    from torch import Tensor


def _function(x: "Tensor", slope: "Tensor", center: "Tensor", offset: "Tensor") -> "Tensor":
    return slope * (x - center).abs() + offset


def _mean(x: "Tensor", distributions: Distributions) -> "Tensor":
    return distributions["slope"].mean * distributions["center"].distance(x) + distributions["offset"].mean


def _features(x: "Tensor", center: "Tensor", **others: "Tensor") -> "Sequence[Tensor]":
    return [(x - center).abs(), 0 * x + 1]


ABSOLUTE = Family(
    _function,
    {"slope": (-3.0, 3.0), "center": (-3.0, 3.0), "offset": (-3.0, 3.0)},
    "absolute values: slope * |x - center| + offset",
    "slope",
    _mean,
    _features,
)
