"""Baselines of families of formulas, as far as they are known in closed form.

Shapes: R runs, B tasks, K points; everything in float64.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maml_cli.core import Points
from maml_cli.tasks.family import Approximation, Baseline, BaselinePredictors, Predictor, Range
from maml_cli.tasks.quasi_random import median_predictor
from maml_cli.tasks.sinusoid_baselines import predict_zero

if TYPE_CHECKING:
    from maml_cli.tasks.parametric_family import ParametricFamily, ParametricFunctions

NUM_DRAWS, NUM_KNOTS = 4096, 501


def baselines(family: "ParametricFamily") -> dict[str, Baseline | Approximation | None]:
    """The baselines of a family, by name.

    zero: the constant 0.
    best_unadapted: the conditional mean (for MSE) and median (for MAE) of y given x; None without a closed form.
    least_squares: the best fit to the support points of a combination of the features of the task's own formula, whose
        nonlinear parameters are known (oracle); None if a formula has no features.
    """
    mean = conditional_mean(family)
    unadapted = mean and BaselinePredictors(mean, median_predictor(functions_at(family).__call__, family.test_range))

    def fitted(support: Points, functions: "ParametricFunctions") -> BaselinePredictors:
        predict = least_squares(support, functions)
        return BaselinePredictors(predict, predict)

    has_features = all(component.family.features for component in family.components)
    return {
        "zero": lambda support, functions: BaselinePredictors(predict_zero, predict_zero),
        "best_unadapted": (lambda support, functions: unadapted) if unadapted else None,
        "least_squares": fitted if has_features else None,
    }


def conditional_mean(family: "ParametricFamily") -> Predictor | None:
    """E[y | x] over the family, the weighted mean over its components; None unless each has a closed form."""
    total = sum(component.weight for component in family.components)
    pairs = [
        (component.weight / total, component.family.mean, dict(component.distributions))
        for component in family.components
    ]
    probe = torch.zeros(1, dtype=torch.float64)
    if any(mean(probe, distributions) is None for _, mean, distributions in pairs):
        return None

    def predict(x: Tensor) -> Tensor:
        result = torch.zeros_like(x)
        for share, mean, distributions in pairs:
            value = mean(x, distributions)
            assert value is not None, "the closed form does not depend on x"
            result = result + share * value
        return result

    return predict


def least_squares(support: Points, functions: "ParametricFunctions") -> Predictor:
    """The least-squares fit of each task's formula, its nonlinear parameters given; of least norm from few points."""

    def design(index: int, x: Tensor) -> Tensor:
        features = functions.components[index].family.features
        assert features is not None, "checked by baselines"
        return torch.cat(
            [value.to(x.dtype).expand_as(x) for value in features(x, **functions.parameters[index])], dim=-1
        )

    weights = [
        torch.linalg.lstsq(design(index, support.x), support.y, driver="gelsd").solution
        for index in range(len(functions.components))
    ]
    return lambda x: functions.select([design(index, x) @ solution for index, solution in enumerate(weights)])


def best_nonadaptive_error(family: "ParametricFamily", measure: str) -> float | None:
    """The least error (`mse` or `mae`) over the family and the test range of x without adapting; None if unknown."""
    mean = conditional_mean(family)
    if mean is None:
        return None
    at = functions_at(family)
    x = torch.linspace(*family.test_range, NUM_KNOTS, dtype=torch.float64)
    predict, power = (mean, 2) if measure == "mse" else (median_predictor(at.__call__, family.test_range), 1)
    return (at(x) - predict(x)).abs().pow(power).mean().item()


def target_range(family: "ParametricFamily") -> Range:
    """The range of the targets of quasi-random draws of the family, on the range of x."""
    values = functions_at(family)(torch.linspace(*family.x, NUM_KNOTS, dtype=torch.float64))
    low, high = values.aminmax()
    return low.item(), high.item()


def functions_at(family: "ParametricFamily", num_draws: int = NUM_DRAWS) -> "ParametricFunctions":
    """`num_draws` functions spread evenly over the family; called with x (N,), they give (num_draws, N)."""
    engine = torch.quasirandom.SobolEngine(family.num_parameters)  # type: ignore[no-untyped-call]
    uniform = engine.draw(num_draws, dtype=torch.float64)
    functions = family.functions(uniform[..., None, None])
    squeezed = [{name: value[..., 0] for name, value in group.items()} for group in functions.parameters]
    return functions._replace(parameters=squeezed, kind=functions.kind[..., 0])
