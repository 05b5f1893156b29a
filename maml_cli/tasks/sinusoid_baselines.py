"""What can be had without meta-learning: constant answers, and exact fits by an oracle.

Shapes: R runs, B tasks, K points; everything in float64.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from maml_cli.core import Points
from maml_cli.tasks.family import Range
from maml_cli.tasks.sinusoids import SineFamily, Sinusoids

Predictor = Callable[[Tensor], Tensor]
"""Points (R, B, K, 1) -> predictions of the same shape."""


def predict_zero(x: Tensor) -> Tensor:
    """Predict zero everywhere."""
    return torch.zeros_like(x)


def conditional_mean(family: SineFamily) -> Predictor:
    """E[y | x] over the family: the best answer in mean squared error that does not adapt.

    With U uniform on [a, b], E[exp(itU)] = exp(it(a + b)/2) sin(t(b - a)/2) / (t(b - a)/2); the mean of
    sin(frequency * x - phase) is the imaginary part of a product of two such factors.
    """
    frequency, phase = _middle(family.frequency), _middle(family.phase)
    damped = _sinc(torch.tensor(_width(family.phase) / 2, dtype=torch.float64)) * _middle(family.amplitude)

    def answer(x: Tensor) -> Tensor:
        wave = torch.sin(frequency * x - phase) * _sinc(x * _width(family.frequency) / 2)
        return damped * wave + _middle(family.offset)

    return answer


def conditional_median(family: SineFamily, *, num_draws: int = 4096, num_knots: int = 501) -> Predictor:
    """The median of y given x over the family: the best answer in mean absolute error that does not adapt.

    From quasi-random draws of the family at equally spaced knots, linear between them.
    """
    low, high = family.x
    knots = torch.linspace(low, high, num_knots, dtype=torch.float64)
    values = _quasi_random(family, num_draws)(knots).median(dim=0).values

    def answer(x: Tensor) -> Tensor:
        place = ((x - low) / (high - low) * (num_knots - 1)).clamp(0, num_knots - 1)
        left = place.floor().clamp(max=num_knots - 2).long()
        return torch.lerp(values[left], values[left + 1], place - left)

    return answer


def best_nonadaptive_error(family: SineFamily, measure: str, *, num_draws: int = 4096, num_points: int = 501) -> float:
    """The least error (`mse` or `mae`) over the family and the range of x that can be had without adapting."""
    x = torch.linspace(*family.x, num_points, dtype=torch.float64)
    answer, power = (conditional_mean(family), 2) if measure == "mse" else (conditional_median(family), 1)
    return (_quasi_random(family, num_draws)(x) - answer(x)).abs().pow(power).mean().item()


def least_squares(family: SineFamily, support: Points, frequency: Tensor) -> Predictor:
    """The sinusoid of the given frequency (R, B, 1, 1) that fits each task's support points best.

    Linear in amplitude * cos(phase), amplitude * sin(phase) and, where it varies, the offset: with the true frequency
    an exact oracle from as many noise-free points as unknowns, and the fit of least norm from fewer.
    """
    features, targets = _linear_problem(family, support)
    weights = torch.linalg.lstsq(features(support.x, frequency), targets, driver="gelsd").solution
    return lambda x: features(x, frequency) @ weights + _fixed_offset(family)


def best_frequency(family: SineFamily, support: Points, *, num_starts: int = 8, num_halvings: int = 60) -> Tensor:
    """The frequency (R, B, 1, 1) in the family's range at which least squares leaves the least of the support points.

    Golden-section search around each of the `num_starts` best minima on a grid that is fine against the waves that the
    range of x tells apart; amplitude and phase are solved for at each frequency (variable projection, Golub and Pereyra
    1973). With few points several frequencies may fit alike.
    """
    features, targets = _linear_problem(family, support)

    def left_over(frequency: Tensor) -> Tensor:
        """(..., R, B, 1, 1), from the normal equations: enough to compare by."""
        matrix = features(support.x, frequency)
        gram = matrix.mT @ matrix
        ridge = 1e-12 * torch.eye(gram.shape[-1], dtype=gram.dtype) * support.x.shape[-2]
        weights = torch.linalg.solve(gram + ridge, matrix.mT @ targets)
        errors: Tensor = targets - matrix @ weights
        return errors.square().sum(dim=-2, keepdim=True)

    low, high = family.frequency
    # 32 to each pi / (range of x), about as near as two frequencies can be told apart on it.
    num_grid = 65 + math.ceil(32 * (high - low) * _width(family.x) / math.pi)
    grid = torch.linspace(low, high, num_grid, dtype=support.x.dtype)
    errors = torch.cat([left_over(frequency.expand(1, 1, 1, 1)) for frequency in grid], dim=-1)
    edge = torch.full_like(errors[..., :1], math.inf)
    around = torch.minimum(torch.cat([edge, errors[..., :-1]], dim=-1), torch.cat([errors[..., 1:], edge], dim=-1))
    minima = errors.where(errors <= around, math.inf)
    best = minima.topk(min(num_starts, num_grid), dim=-1, largest=False).indices.movedim(-1, 0).unsqueeze(-1)
    a, b = (grid[(best + side).clamp(0, num_grid - 1)] for side in (-1, 1))
    shrink = (math.sqrt(5) - 1) / 2
    for _ in range(num_halvings):
        near, far = b - shrink * (b - a), a + shrink * (b - a)
        left = left_over(near) < left_over(far)
        a, b = torch.where(left, a, near), torch.where(left, far, b)
    found = (a + b) / 2
    return found.gather(0, left_over(found).argmin(dim=0, keepdim=True)).squeeze(0)


def _linear_problem(family: SineFamily, support: Points) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """The functions (points, frequency) -> (..., K, unknowns) that a sinusoid is a sum of, and the targets."""
    offset_varies = _width(family.offset) > 0

    def features(x: Tensor, frequency: Tensor) -> Tensor:
        waves = [torch.sin(frequency * x), torch.cos(frequency * x)]
        return torch.cat([*waves, torch.ones_like(waves[0])] if offset_varies else waves, dim=-1)

    return features, support.y - _fixed_offset(family)


def _fixed_offset(family: SineFamily) -> float:
    return 0.0 if _width(family.offset) > 0 else _middle(family.offset)


def _quasi_random(family: SineFamily, num_draws: int) -> Sinusoids:
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
