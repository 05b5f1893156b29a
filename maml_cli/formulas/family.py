"""A family of functions of one variable: a formula, and a distribution for each of its parameters."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from maml_cli.formulas.distributions import Distribution, as_distribution

if TYPE_CHECKING:
    from torch import Tensor

Distributions = Mapping[str, Distribution]
"""Parameter -> its distribution over the tasks."""


class Family(NamedTuple):
    """A family of functions y = function(x, **parameters).

    function: (x, **parameters) -> y, elementwise; x is (R, B, K, 1) and each parameter (R, B, 1, 1), or of other shapes
        that broadcast.
    parameters: name -> distribution where the config names no other: (low, high), a number, or a Distribution.
    summary: a line of text.
    amplitude: the parameter that `tasks.relative_noise` is a multiple of; empty if there is none.
    mean: (x, distributions) -> E[y | x] over the tasks, in closed form, or None for distributions without one.
    features: (x, **parameters) -> functions of x, such as x and 1, in whose coefficients y is linear; those that the
        functions depend on, such as a frequency, are parameters. None if there are none.
    """

    function: "Callable[..., Tensor]"
    parameters: Mapping[str, object]
    summary: str = ""
    amplitude: str = ""
    mean: "Callable[[Tensor, Distributions], Tensor | None]" = lambda x, distributions: None
    features: "Callable[..., Sequence[Tensor]] | None" = None

    def distributions(self, changes: Mapping[str, object] | None) -> dict[str, Distribution]:
        """The distribution of each parameter, with `changes` in place of the family's own; raises ValueError with the
        reason."""
        changes = changes or {}
        if unknown := [name for name in changes if name not in self.parameters]:
            raise ValueError(f"has {unknown[0]}; there are {', '.join(self.parameters)}")
        result = {}
        for name, value in {**self.parameters, **changes}.items():
            try:
                result[name] = as_distribution(value)
            except ValueError as error:
                raise ValueError(f"has {name}, which {error}") from None
        return result
