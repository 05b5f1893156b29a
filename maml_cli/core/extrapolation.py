"""Inner steps beyond the trained ones, where every step has alphas or preconditioners of its own: those of the last."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from maml_cli.core.clipping import squared_norm
from maml_cli.core.inner_loop import RuleParamsByStep, UpdateRule
from maml_cli.core.network import Params


class Extrapolation(NamedTuple):
    """The updates of inner steps past the last that has parameters.

    factor: number of steps past the last, from 1 -> the factor on the updates.
    longest: largest length of a task's update, as a multiple of the length of the update before it.
    """

    factor: Callable[[int], float]
    longest: float = math.inf


EXTRAPOLATIONS: dict[str, Extrapolation] = {
    "hold": Extrapolation(lambda steps_past_last: 1.0),
    "decay": Extrapolation(lambda steps_past_last: 0.5**steps_past_last, longest=0.05),
    "stop": Extrapolation(lambda steps_past_last: 0.0),
}
"""Values of `inner.alpha.after_last_step`. With decay all later steps together move a task by little more than 5 %
of the last one that was trained: a task whose step does not converge, which would end in overflow if it were repeated,
stays where it was."""

LENGTH = "squared length"
"""Key of a rule's state: the squared length of each task's last update."""


def extrapolate(num_steps: int, extrapolation: Extrapolation | None) -> UpdateRule:
    """The updates of inner steps past the last of `num_steps` that have parameters, by `extrapolation`.

    Without `extrapolation` such a step raises ValueError.

    >>> update = extrapolate(1, EXTRAPOLATIONS["decay"])
    >>> updates, state = update({}, {"w": torch.tensor([[4.0]])}, 0, {})  # the trained step
    >>> round(update({}, {"w": torch.tensor([[10.0]])}, 1, state)[0]["w"].item(), 4)  # half of 10 is above 5 % of 4
    0.2
    """

    def update(rule_params: RuleParamsByStep, gradients: Params, step: int, state: Params) -> tuple[Params, Params]:
        if step < num_steps - 1:
            return gradients, state
        if step >= num_steps:
            if extrapolation is None:
                raise ValueError(
                    f"inner step {step + 1} has no step size: {num_steps} were learned and "
                    "inner.alpha.after_last_step is not set"
                )
            factor = extrapolation.factor(step - num_steps + 1)
            gradients = {key: factor * gradient for key, gradient in gradients.items()}
            if extrapolation.longest < math.inf:
                limit, squared = extrapolation.longest**2 * state[LENGTH], squared_norm(gradients)
                shorter = torch.where(squared > limit, limit / squared, 1.0).sqrt()
                gradients = {key: shorter * gradient for key, gradient in gradients.items()}
        if extrapolation is None or extrapolation.longest == math.inf:
            return gradients, state
        return gradients, state | {LENGTH: squared_norm(gradients)}

    return update
