"""Baselines of sinusoids: the best predictors that do not adapt, and least-squares fits to the support points.

Shapes: R runs, B tasks, K points; everything in float64.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from maml_cli.core import Points
from maml_cli.tasks.family import Baseline, BaselinePredictors, Predictor, Range
from maml_cli.tasks.sinusoids import SineRanges, Sinusoids


def sine_baselines(family: SineRanges) -> dict[str, Baseline | None]:
    """The baselines of a family of sinusoids, by name.

    zero: the constant 0.
    best_unadapted: the conditional mean (for MSE) and median (for MAE) of y given x over the family.
    least_squares: the best fit to the support points at the frequency of the task (oracle).
    least_squares_any_frequency: the best fit with the frequency fitted too; None where all tasks have the same.
    """
    unadapted = BaselinePredictors(conditional_mean(family), conditional_median(family))

    def at_true_frequency(support: Points, functions: Sinusoids) -> BaselinePredictors:
        predict = least_squares(family, support, functions.frequency)
        return BaselinePredictors(predict, predict)

    def at_best_frequency(support: Points, functions: Sinusoids) -> BaselinePredictors:
        predict = least_squares(family, support, best_frequency(family, support))
        return BaselinePredictors(predict, predict)

    return {
        "zero": lambda support, functions: BaselinePredictors(predict_zero, predict_zero),
        "best_unadapted": lambda support, functions: unadapted,
        "least_squares": at_true_frequency,
        "least_squares_any_frequency": at_best_frequency if _width(family.frequency) > 0 else None,
    }


def predict_zero(x: Tensor) -> Tensor:
    """Predict zero everywhere."""
    return torch.zeros_like(x)


def conditional_mean(family: SineRanges) -> Predictor:
    """E[y | x] over the family: the non-adaptive predictor of least mean squared error.

    With U uniform on [a, b], E[exp(itU)] = exp(it(a + b)/2) sin(t(b - a)/2) / (t(b - a)/2); the mean of
    sin(frequency * x - phase) is the imaginary part of a product of two such factors.
    """
    frequency, phase = _middle(family.frequency), _middle(family.phase)
    damped = _sinc(torch.tensor(_width(family.phase) / 2, dtype=torch.float64)) * _middle(family.amplitude)

    def predict(x: Tensor) -> Tensor:
        wave = torch.sin(frequency * x - phase) * _sinc(x * _width(family.frequency) / 2)
        return damped * wave + _middle(family.offset)

    return predict


def conditional_median(family: SineRanges, *, num_draws: int = 4096, num_knots: int = 501) -> Predictor:
    """The median of y given x over the family: the non-adaptive predictor of least mean absolute error.

    From quasi-random draws of the family at equally spaced knots, linear between them.
    """
    low, high = family.x
    knots = torch.linspace(low, high, num_knots, dtype=torch.float64)
    values = _quasi_random(family, num_draws)(knots).median(dim=0).values

    def predict(x: Tensor) -> Tensor:
        position = ((x - low) / (high - low) * (num_knots - 1)).clamp(0, num_knots - 1)
        left = position.floor().clamp(max=num_knots - 2).long()
        return torch.lerp(values[left], values[left + 1], position - left)

    return predict


def best_nonadaptive_error(family: SineRanges, measure: str, *, num_draws: int = 4096, num_points: int = 501) -> float:
    """The least error (`mse` or `mae`) over the family and the range of x that is possible without adapting."""
    x = torch.linspace(*family.x, num_points, dtype=torch.float64)
    predict, power = (conditional_mean(family), 2) if measure == "mse" else (conditional_median(family), 1)
    return (_quasi_random(family, num_draws)(x) - predict(x)).abs().pow(power).mean().item()


def least_squares(family: SineRanges, support: Points, frequency: Tensor) -> Predictor:
    """The sinusoid of the given frequency (R, B, 1, 1) that fits each task's support points best.

    Linear in amplitude * cos(phase), amplitude * sin(phase) and, where it varies, the offset: with the true frequency
    an exact oracle from as many noise-free points as unknowns, and the fit of least norm from fewer.
    """
    features, targets = _linear_problem(family, support)
    weights = torch.linalg.lstsq(features(support.x, frequency), targets, driver="gelsd").solution
    return lambda x: features(x, frequency) @ weights + _fixed_offset(family)


def best_frequency(family: SineRanges, support: Points, *, num_starts: int = 8, num_halvings: int = 60) -> Tensor:
    """The frequency (R, B, 1, 1) in the family's range with the least residual sum of squares on the support points.

    Golden-section search around each of the `num_starts` best local minima on a grid of frequencies; amplitude and
    phase are solved for at each frequency (variable projection, Golub and Pereyra 1973). With few points several
    frequencies may fit equally well.
    """
    features, targets = _linear_problem(family, support)

    def residual_sum_of_squares(frequency: Tensor) -> Tensor:
        """(..., R, B, 1, 1), from ridged normal equations: accurate enough to rank frequencies."""
        matrix = features(support.x, frequency)
        gram = matrix.mT @ matrix
        ridge = 1e-12 * torch.eye(gram.shape[-1], dtype=gram.dtype) * support.x.shape[-2]
        weights = torch.linalg.solve(gram + ridge, matrix.mT @ targets)
        errors: Tensor = targets - matrix @ weights
        return errors.square().sum(dim=-2, keepdim=True)

    low, high = family.frequency
    # 32 to each pi / (range of x), the resolution of frequencies on that range.
    num_grid = 65 + math.ceil(32 * (high - low) * _width(family.x) / math.pi)
    grid = torch.linspace(low, high, num_grid, dtype=support.x.dtype)
    errors = torch.cat([residual_sum_of_squares(frequency.expand(1, 1, 1, 1)) for frequency in grid], dim=-1)
    edge = torch.full_like(errors[..., :1], math.inf)
    neighbours = torch.minimum(torch.cat([edge, errors[..., :-1]], dim=-1), torch.cat([errors[..., 1:], edge], dim=-1))
    minima = errors.where(errors <= neighbours, math.inf)
    best = minima.topk(min(num_starts, num_grid), dim=-1, largest=False).indices.movedim(-1, 0).unsqueeze(-1)
    a, b = (grid[(best + side).clamp(0, num_grid - 1)] for side in (-1, 1))
    shrink = (math.sqrt(5) - 1) / 2
    for _ in range(num_halvings):
        lower, upper = b - shrink * (b - a), a + shrink * (b - a)
        left = residual_sum_of_squares(lower) < residual_sum_of_squares(upper)
        a, b = torch.where(left, a, lower), torch.where(left, upper, b)
    candidates = (a + b) / 2
    return candidates.gather(0, residual_sum_of_squares(candidates).argmin(dim=0, keepdim=True)).squeeze(0)


def _linear_problem(family: SineRanges, support: Points) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """The design matrix of a sinusoid, (inputs, frequency) -> (..., K, unknowns), and targets less a fixed offset."""
    offset_varies = _width(family.offset) > 0

    def features(x: Tensor, frequency: Tensor) -> Tensor:
        waves = [torch.sin(frequency * x), torch.cos(frequency * x)]
        return torch.cat([*waves, torch.ones_like(waves[0])] if offset_varies else waves, dim=-1)

    return features, support.y - _fixed_offset(family)


def _fixed_offset(family: SineRanges) -> float:
    return 0.0 if _width(family.offset) > 0 else _middle(family.offset)


def _quasi_random(family: SineRanges, num_draws: int) -> Sinusoids:
    """`num_draws` functions spread evenly over the family, each parameter (num_draws, 1)."""
    uniform = torch.quasirandom.SobolEngine(4).draw(num_draws, dtype=torch.float64)  # type: ignore[no-untyped-call]
    limits = torch.tensor([family.amplitude, family.frequency, family.phase, family.offset], dtype=torch.float64)
    columns = limits[:, 0] + (limits[:, 1] - limits[:, 0]) * uniform
    return Sinusoids(*columns.unsqueeze(-1).unbind(-2))


def _middle(limits: Range) -> float:
    return (limits[0] + limits[1]) / 2


def _width(limits: Range) -> float:
    return limits[1] - limits[0]


def _sinc(z: Tensor) -> Tensor:
    """sin(z) / z."""
    return torch.sinc(z / torch.pi)
