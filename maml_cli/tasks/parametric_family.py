"""Task families of formulas with random parameters, and mixtures of several.

Shapes: R runs, B tasks, K points. Points are (R, B, K, 1), parameters of a task (R, B, 1, 1).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_cli.formulas import Distribution, Family
from maml_cli.tasks import parametric_baselines
from maml_cli.tasks.family import KIND, Approximation, Baseline, Range
from maml_cli.tasks.sampler import FUNCTION_GRID, Sampler
from maml_cli.tasks.scaling import Scaling


class Component(NamedTuple):
    """A family of formulas with the distributions of its parameters.

    name: of the family.
    family: the formula.
    distributions: of each parameter, in the order of the family.
    weight: of the component in a mixture; shares are proportional to weights.
    """

    name: str
    family: Family
    distributions: tuple[tuple[str, Distribution], ...]
    weight: float = 1.0


def component_labels(components: Sequence[Component]) -> list[str]:
    """The names of several components, with a number where two have the same, such as `line 1` and `line 2`; none for
    a single one."""
    names = [component.name for component in components]
    if len(names) == 1:
        return []
    numbers = [names[: index + 1].count(name) for index, name in enumerate(names)]
    return [f"{name} {number}" if names.count(name) > 1 else name for name, number in zip(names, numbers, strict=True)]


class ParametricFunctions(NamedTuple):
    """Noise-free functions of a batch of tasks.

    components: of the mixture, or the only one.
    parameters: of each component, name -> values (R, B, 1, 1); those of components that a task is not of are not used.
    kind: index of the component of each task, (R, B, 1, 1).
    """

    components: tuple[Component, ...]
    parameters: list[dict[str, Tensor]]
    kind: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        values = [
            component.family.function(x, **parameters)
            for component, parameters in zip(self.components, self.parameters, strict=True)
        ]
        return self.select(values)

    def select(self, by_component: Sequence[Tensor]) -> Tensor:
        """For each task, the values of its own component."""
        result = by_component[0]
        for index, values in enumerate(by_component[1:], start=1):
            result = torch.where(self.kind == index, values, result)
        return result

    def columns(self) -> dict[str, list[Any]]:
        """The parameters of each task, and for a mixture its kind; components share the column of a parameter of equal
        name. See TaskFunctions."""
        kind = self.kind.flatten().tolist()
        labels = component_labels(self.components)
        names = dict.fromkeys(name for parameters in self.parameters for name in parameters)
        columns: dict[str, list[Any]] = {KIND: [labels[index] for index in kind]} if labels else {}
        columns |= {name: [None] * len(kind) for name in names}
        for index, parameters in enumerate(self.parameters):
            for name, values in parameters.items():
                of_component = values.expand_as(self.kind).flatten().tolist()
                for task, value in enumerate(of_component):
                    if kind[task] == index:
                        columns[name][task] = value
        return columns

    def amplitudes(self) -> Tensor:
        """The magnitude of the amplitude of each task, (R, B, 1, 1)."""
        pairs = zip(self.components, self.parameters, strict=True)
        return self.select([parameters[component.family.amplitude].abs() for component, parameters in pairs])


class ParametricFamily(NamedTuple):
    """A distribution over formulas with random parameters.

    components: the formulas, one or several.
    x: range of the inputs, which are uniform on it.
    test_range: range of the query points of test tasks, and of the evaluation grid.
    noise: standard deviation of Gaussian noise on the targets, or its ratio to the amplitude of a task.
    is_noise_relative: whether it is the latter.
    """

    components: tuple[Component, ...]
    x: Range
    test_range: Range
    noise: float = 0.0
    is_noise_relative: bool = False

    @property
    def y(self) -> Range:
        """The range of the noise-free targets, from quasi-random draws of the family."""
        return parametric_baselines.target_range(self)

    @property
    def kinds(self) -> list[str]:
        """The labels of the components of a mixture; none for a single one."""
        return component_labels(self.components)

    @property
    def scaling(self) -> Scaling:
        """None: networks take x and y as they are."""
        return Scaling()

    @property
    def grid_name(self) -> str:
        """The points `grid` of a test block."""
        return FUNCTION_GRID

    @property
    def sampler(self) -> Sampler:
        """The sampler of its tasks: the first uniform number of a mixture's task chooses the component."""
        return Sampler(
            self.num_parameters,
            self.functions,
            self.x,
            self.test_range,
            self.noise,
            ParametricFunctions.amplitudes if self.is_noise_relative else None,
        )

    @property
    def num_parameters(self) -> int:
        """Uniform numbers of a task: one for each parameter, and one for the component of a mixture."""
        return sum(len(component.distributions) for component in self.components) + (len(self.components) > 1)

    def functions(self, uniform: Tensor) -> ParametricFunctions:
        """The functions of tasks from uniform numbers (..., B, P, 1, 1)."""
        numbers = iter(uniform.unbind(-3))
        kind = torch.zeros_like(uniform[..., 0, :, :], dtype=torch.long)
        if len(self.components) > 1:
            shares = torch.tensor([component.weight for component in self.components], dtype=uniform.dtype)
            bounds = (shares.cumsum(0) / shares.sum())[:-1]
            kind = torch.bucketize(next(numbers).contiguous(), bounds, right=True)
        parameters = [
            {name: distribution.quantile(next(numbers)) for name, distribution in component.distributions}
            for component in self.components
        ]
        return ParametricFunctions(self.components, parameters, kind)

    def baselines(self) -> Mapping[str, Baseline | Approximation | None]:
        """Predictors without meta-learning; see parametric_baselines.baselines."""
        return parametric_baselines.baselines(self)

    def best_nonadaptive_error(self, measure: str) -> float | None:
        """The least error (`mse` or `mae`) that is possible without adapting; None if it is not known."""
        return parametric_baselines.best_nonadaptive_error(self, measure)
