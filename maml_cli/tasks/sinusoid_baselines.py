"""Baselines of sinusoids: the best predictors that do not adapt, and least-squares fits to the support points.

Shapes: R runs, B tasks, K points; everything in float64.
"""

import torch
from torch import Tensor

from maml_cli.core import Points
from maml_cli.tasks.family import Approximation, Baseline, BaselinePredictors, Predictor
from maml_cli.tasks.frequency_search import MAX_FREQUENCIES, best_frequency, num_frequencies
from maml_cli.tasks.linear_fit import fixed_offset, linear_problem, middle, width
from maml_cli.tasks.quasi_random import median_predictor
from maml_cli.tasks.sinusoids import SineRanges, Sinusoids


def sine_baselines(family: SineRanges) -> dict[str, Baseline | Approximation | None]:
    """The baselines of a family of sinusoids, by name.

    zero: the constant 0.
    best_unadapted: the conditional mean (for MSE) and median (for MAE) of y given x over the family.
    least_squares: the best fit to the support points at the frequency of the task (oracle).
    least_squares_any_frequency: the best fit with the frequency fitted too; None where all tasks have the same, an
        Approximation where the search would need more than MAX_FREQUENCIES frequencies.
    """
    unadapted = BaselinePredictors(conditional_mean(family), conditional_median(family))

    def at_true_frequency(support: Points, functions: Sinusoids) -> BaselinePredictors:
        predict = least_squares(family, support, functions.frequency)
        return BaselinePredictors(predict, predict)

    def at_best_frequency(support: Points, functions: Sinusoids) -> BaselinePredictors:
        predict = least_squares(family, support, best_frequency(family, support))
        return BaselinePredictors(predict, predict)

    note = _approximation_note(family)
    any_frequency = Approximation(at_best_frequency, note) if note else at_best_frequency
    return {
        "zero": lambda support, functions: BaselinePredictors(predict_zero, predict_zero),
        "best_unadapted": lambda support, functions: unadapted,
        "least_squares": at_true_frequency,
        "least_squares_any_frequency": any_frequency if width(family.frequency) > 0 else None,
    }


def predict_zero(x: Tensor) -> Tensor:
    """Predict zero everywhere."""
    return torch.zeros_like(x)


def conditional_mean(family: SineRanges) -> Predictor:
    """E[y | x] over the family: the non-adaptive predictor of least mean squared error.

    With U uniform on [a, b], E[exp(itU)] = exp(it(a + b)/2) sin(t(b - a)/2) / (t(b - a)/2); the mean of
    sin(frequency * x - phase) is the imaginary part of a product of two such factors.
    """
    frequency, phase = middle(family.frequency), middle(family.phase)
    damped = _sinc(torch.tensor(width(family.phase) / 2, dtype=torch.float64)) * middle(family.amplitude)

    def predict(x: Tensor) -> Tensor:
        wave = torch.sin(frequency * x - phase) * _sinc(x * width(family.frequency) / 2)
        return damped * wave + middle(family.offset)

    return predict


def conditional_median(family: SineRanges, *, num_draws: int = 4096) -> Predictor:
    """The median of y given x over the family: the non-adaptive predictor of least mean absolute error.

    From quasi-random draws of the family at equally spaced knots, linear between them.
    """
    return median_predictor(_quasi_random(family, num_draws).__call__, family.test_range)


def best_nonadaptive_error(family: SineRanges, measure: str, *, num_draws: int = 4096, num_points: int = 501) -> float:
    """The least error (`mse` or `mae`) over the family and the range of x that is possible without adapting."""
    x = torch.linspace(*family.test_range, num_points, dtype=torch.float64)
    predict, power = (conditional_mean(family), 2) if measure == "mse" else (conditional_median(family), 1)
    return (_quasi_random(family, num_draws)(x) - predict(x)).abs().pow(power).mean().item()


def least_squares(family: SineRanges, support: Points, frequency: Tensor) -> Predictor:
    """The sinusoid of the given frequency (R, B, 1, 1) that fits each task's support points best.

    Linear in amplitude * cos(phase), amplitude * sin(phase) and, where it varies, the offset: with the true frequency
    an exact oracle from as many noise-free points as unknowns, and the fit of least norm from fewer.
    """
    features, targets = linear_problem(family, support)
    weights = torch.linalg.lstsq(features(support.x, frequency), targets, driver="gelsd").solution
    return lambda x: features(x, frequency) @ weights + fixed_offset(family)


def _approximation_note(family: SineRanges) -> str:
    """The reason why the search for the frequency may miss the best one; empty if it does not."""
    count = num_frequencies(family)
    if count <= MAX_FREQUENCIES:
        return ""
    return (
        f"searched at {MAX_FREQUENCIES:,} of the {count:,.0f} frequencies that tasks.frequency and tasks.x need: a "
        f"coarser answer, which may miss the best one"
    )


def _quasi_random(family: SineRanges, num_draws: int) -> Sinusoids:
    """`num_draws` functions spread evenly over the family, each parameter (num_draws, 1)."""
    uniform = torch.quasirandom.SobolEngine(4).draw(num_draws, dtype=torch.float64)  # type: ignore[no-untyped-call]
    limits = torch.tensor([family.amplitude, family.frequency, family.phase, family.offset], dtype=torch.float64)
    columns = limits[:, 0] + (limits[:, 1] - limits[:, 0]) * uniform
    return Sinusoids(*columns.unsqueeze(-1).unbind(-2))


def _sinc(z: Tensor) -> Tensor:
    """sin(z) / z."""
    return torch.sinc(z / torch.pi)
