"""Lines, as in the multimodal benchmark of MMAML (Vuorio et al. 2019, arXiv:1910.13616)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maml_cli.formulas.family import Distributions, Family

if TYPE_CHECKING:
    from torch import Tensor


def _function(x: "Tensor", slope: "Tensor", intercept: "Tensor") -> "Tensor":
    return slope * x + intercept


def _mean(x: "Tensor", distributions: Distributions) -> "Tensor":
    return distributions["slope"].mean * x + distributions["intercept"].mean


def _features(x: "Tensor", **others: "Tensor") -> "Sequence[Tensor]":
    return [x, 0 * x + 1]


LINE = Family(
    _function,
    {"slope": (-3.0, 3.0), "intercept": (-3.0, 3.0)},
    "lines: slope * x + intercept",
    "slope",
    _mean,
    _features,
)
