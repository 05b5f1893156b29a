"""Baselines of the user's own curves: zero, the mean curve, and the least-squares sinusoid.

Shapes: R runs, B tasks, K points, T training curves with N points in all; everything in float64.
"""

import math
from typing import Any

import torch
from torch import Tensor

from maml_cli.core import Points
from maml_cli.tasks.curves import Curves
from maml_cli.tasks.family import Baseline, BaselinePredictors, Predictor
from maml_cli.tasks.sinusoid_baselines import predict_zero

MAX_KNOTS = 100
"""Knots of the mean curve: more different inputs are put into as many groups of equally many points."""
CYCLES = (0.25, 20.0)
"""Cycles over the range of x of the sinusoids that are fitted."""
CYCLE_STEP, FINE_STEPS = 0.125, 64
"""Step of the search, which is then repeated FINE_STEPS times as fine around the best one."""
MAX_FITTED = 20_000
"""Training points that the frequency is fitted to, those of the first curves."""


def baselines(curves: Curves) -> dict[str, Baseline | None]:
    """The baselines of a table of curves, by name; None for those that need training curves where there are none.

    zero: the constant 0.
    mean_curve: the mean (for MSE) and the median (for MAE) of the targets of the training curves near each input.
    least_squares_sinusoid: amplitude, phase and offset fitted to the support points, at the frequency that fits the
        training curves best.
    """
    zero = BaselinePredictors(predict_zero, predict_zero)
    x, y = curves.points(curves.indices("train"))
    if not len(x):
        return {"zero": lambda support, functions: zero, "mean_curve": None, "least_squares_sinusoid": None}
    mean, median = (_curve_through_groups(x, y, function) for function in (_mean, _median))
    frequency = best_frequency(curves)
    center = y.mean()

    def sinusoid(support: Points, functions: Any) -> BaselinePredictors:
        design = _features(support.x, frequency)
        solution: Tensor = torch.linalg.lstsq(design, support.y - center, driver="gelsd").solution

        def predict(x: Tensor) -> Tensor:
            return _features(x, frequency) @ solution + center

        return BaselinePredictors(predict, predict)

    return {
        "zero": lambda support, functions: zero,
        "mean_curve": lambda support, functions: BaselinePredictors(mean, median),
        "least_squares_sinusoid": sinusoid,
    }


def best_frequency(curves: Curves) -> float:
    """The angular frequency at which sinusoids with an offset, one for each training curve, leave the least squares."""
    training = curves.indices("train")
    count = int((curves.sizes[training].cumsum(0) <= MAX_FITTED).sum())
    fitted = training[: max(1, count)]
    x, y = curves.points(fitted)
    owner = torch.arange(len(fitted)).repeat_interleave(curves.sizes[fitted])
    cycle = 2 * math.pi / ((x.max() - x.min()).item() or 1.0)
    best = 0.0
    candidates = torch.arange(CYCLES[0], CYCLES[1] + CYCLE_STEP, CYCLE_STEP, dtype=torch.float64)
    for _ in range(2):
        squares = [_squares_left(x, y, owner, len(fitted), cycle * cycles) for cycles in candidates.tolist()]
        best = candidates[torch.tensor(squares).argmin()].item()
        steps = torch.arange(-FINE_STEPS, FINE_STEPS + 1, dtype=torch.float64)
        candidates = (best + CYCLE_STEP / FINE_STEPS * steps).clamp(*CYCLES)
    return cycle * best


def _squares_left(x: Tensor, y: Tensor, owner: Tensor, num_curves: int, frequency: float) -> float:
    """The squared residuals of the least-squares sinusoids of all curves, by their normal equations."""
    features = _features(x.unsqueeze(-1), frequency)  # (N, 3)
    gram = torch.zeros(num_curves, 3, 3, dtype=x.dtype)
    gram.index_add_(0, owner, features.unsqueeze(-1) * features.unsqueeze(-2))
    moments = torch.zeros(num_curves, 3, dtype=x.dtype).index_add_(0, owner, features * y.unsqueeze(-1))
    solution = torch.linalg.pinv(gram, rtol=1e-10, hermitian=True) @ moments.unsqueeze(-1)
    residual = y - (features * solution[owner, :, 0]).sum(dim=-1)
    return float(residual.square().sum())


def _features(x: Tensor, frequency: float) -> Tensor:
    """(..., 1) -> (..., 3): sine, cosine and 1."""
    return torch.cat([torch.sin(frequency * x), torch.cos(frequency * x), torch.ones_like(x)], dim=-1)


def _mean(values: Tensor) -> Tensor:
    return values.mean()


def _median(values: Tensor) -> Tensor:
    return values.quantile(0.5)


def _curve_through_groups(x: Tensor, y: Tensor, summary: Any) -> Predictor:
    """A curve through the mean input and the `summary` of the targets of groups of points, linear between them.

    A group is of one input where there are at most MAX_KNOTS different ones.
    """
    order = x.argsort(stable=True)
    x, y = x[order], y[order]
    counts = torch.unique_consecutive(x, return_counts=True)[1]
    if len(counts) > MAX_KNOTS:
        edges = torch.linspace(0, len(x), MAX_KNOTS + 1, dtype=torch.float64).round().long()
        counts = edges.diff()[edges.diff() > 0]
    sizes = counts.tolist()
    knots = torch.stack([group.mean() for group in torch.split(x, sizes)])
    values = torch.stack([summary(group) for group in torch.split(y, sizes)])

    def predict(inputs: Tensor) -> Tensor:
        if len(knots) == 1:
            return values.expand_as(inputs)
        right = torch.searchsorted(knots, inputs.contiguous()).clamp(1, len(knots) - 1)
        low, high = knots[right - 1], knots[right]
        share = ((inputs - low) / (high - low).clamp(min=1e-300)).clamp(0, 1)
        return torch.lerp(values[right - 1], values[right], share)

    return predict
