"""Curvatures: learned preconditioners of the gradients of an inner step.

Keys of their parameters: `hidden0.w.in`, `hidden0.w.out`, for the two factors of the weights `hidden0.w`.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

import torch

from maml_cli.core.inner_loop import RuleParamsByStep, UpdateRule
from maml_cli.core.network import Params
from maml_cli.core.update_rules import identity, value_at_step


def precondition_kronecker(
    rule_params: RuleParamsByStep, gradients: Params, step: int, state: Params
) -> tuple[Params, Params]:
    """Meta-Curvature (Park and Oliva 2019, arXiv:1902.03356, eq. 10): M_in G M_out for the gradient G of a weight.

    The matrix that multiplies the flattened gradient is the Kronecker product of the two factors. A bias, or a
    context, has one axis and one factor: g M_out. With factors for each inner step, steps after the last use the last.
    """
    preconditioned = {}
    for key, gradient in gradients.items():
        right = gradient @ value_at_step(rule_params[f"{key}.out"], step)
        left_key = f"{key}.in"
        preconditioned[key] = value_at_step(rule_params[left_key], step) @ right if left_key in rule_params else right
    return preconditioned, state


def kronecker_keys(keys: Collection[str]) -> list[str]:
    """The names of the factors: two for each weight among the parameters `keys`, one for a bias or a context.

    >>> kronecker_keys(["head.w", "head.b"])
    ['head.w.in', 'head.w.out', 'head.b.out']
    """
    return [f"{key}.{side}" for key in keys for side in (("in", "out") if key.endswith(".w") else ("out",))]


def init_kronecker(params: Params, keys: Collection[str], *, num_steps: int) -> Params:
    """The identity for each factor of the curvature of the parameters `keys`: training starts at gradient descent.

    (R, num_steps, n, n), where num_steps is 1 for factors that all inner steps share.
    """
    factors = {}
    for name in kronecker_keys(keys):
        key, _, side = name.rpartition(".")
        runs, fan_in, fan_out = params[key].shape
        eye = torch.eye(fan_in if side == "in" else fan_out, dtype=params[key].dtype)
        # Moved afterwards: on the device meta, `eye` would import torch._dynamo, a second or two.
        factors[name] = eye.to(params[key].device).repeat(runs, num_steps, 1, 1)
    return factors


class Curvature(NamedTuple):
    """A learned preconditioner of the gradients.

    transform: applied to the gradients, before the inner optimiser.
    keys: parameters that adapt -> the names of its own parameters.
    init: (params (R, ...), parameters that adapt, num_steps=) -> its initial parameters, (R, num_steps, n, n).
    """

    transform: UpdateRule
    keys: Callable[[Collection[str]], list[str]]
    init: Callable[..., Params]


CURVATURES: dict[str, Curvature] = {
    "none": Curvature(identity, keys=lambda keys: [], init=lambda params, keys, num_steps: {}),
    "kronecker": Curvature(precondition_kronecker, keys=kronecker_keys, init=init_kronecker),
}
"""Values of `inner.curvature`."""
