"""Predictors that do not adapt, from functions that are spread evenly over a family."""

from collections.abc import Callable

import torch
from torch import Tensor

from maml_cli.tasks.family import Predictor, Range

NUM_KNOTS = 501


def median_predictor(functions: Callable[[Tensor], Tensor], x_range: Range) -> Predictor:
    """The median of y given x, the non-adaptive predictor of least mean absolute error.

    From functions, x (N,) -> y (draws, N), at equally spaced knots on `x_range`, linear between them.
    """
    low, high = x_range
    knots = torch.linspace(low, high, NUM_KNOTS, dtype=torch.float64)
    values = functions(knots).median(dim=0).values

    def predict(x: Tensor) -> Tensor:
        position = ((x - low) / (high - low) * (NUM_KNOTS - 1)).clamp(0, NUM_KNOTS - 1)
        left = position.floor().clamp(max=NUM_KNOTS - 2).long()
        return torch.lerp(values[left], values[left + 1], position - left)

    return predict
