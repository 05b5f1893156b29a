"""The linear least-squares problem of a sinusoid of known frequency: amplitude, phase and, where it varies, offset."""

from collections.abc import Callable

import torch
from torch import Tensor

from maml_cli.core import Points
from maml_cli.tasks.family import Range
from maml_cli.tasks.sinusoids import SineRanges


def linear_problem(family: SineRanges, support: Points) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """The design matrix of a sinusoid, (inputs, frequency) -> (..., K, unknowns), and targets less a fixed offset."""
    offset_varies = width(family.offset) > 0

    def features(x: Tensor, frequency: Tensor) -> Tensor:
        waves = [torch.sin(frequency * x), torch.cos(frequency * x)]
        return torch.cat([*waves, torch.ones_like(waves[0])] if offset_varies else waves, dim=-1)

    return features, support.y - fixed_offset(family)


def num_unknowns(family: SineRanges) -> int:
    """The unknowns of the problem: 2, or 3 where the offset varies."""
    return 3 if width(family.offset) > 0 else 2


def fixed_offset(family: SineRanges) -> float:
    """The offset of all tasks; 0 where it varies."""
    return 0.0 if width(family.offset) > 0 else middle(family.offset)


def middle(limits: Range) -> float:
    """The middle of a range."""
    return (limits[0] + limits[1]) / 2


def width(limits: Range) -> float:
    """The width of a range."""
    return limits[1] - limits[0]
