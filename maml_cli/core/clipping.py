"""Clipping: transforms that limit the gradients of an inner step, the first of the update rule."""

import torch
from torch import Tensor

from maml_cli.core.inner_loop import RuleParamsByStep, UpdateRule
from maml_cli.core.network import Params


def clip_by_norm(limit: float) -> UpdateRule:
    """The gradients g of each task times limit / max(|g|, limit), |g| the norm over all parameters that adapt.

    Norm clipping (Pascanu et al. 2013, arXiv:1211.5063, Algorithm 1): no inner step on a steep loss leads far away.
    Where it clips, its derivative is limit / |g| times the projection orthogonal to g.

    >>> update = clip_by_norm(5.0)
    >>> gradients = {"w": torch.tensor([[6.0]]), "b": torch.tensor([[8.0]])}  # of norm 10
    >>> [value.item() for value in update({}, gradients, 0, {})[0].values()]
    [3.0, 4.0]
    """

    def update(rule_params: RuleParamsByStep, gradients: Params, step: int, state: Params) -> tuple[Params, Params]:
        factor = norm_factor(squared_norm(gradients), limit)
        return {key: factor * gradient for key, gradient in gradients.items()}, state

    return update


def squared_norm(gradients: Params) -> Tensor:
    """The squared norm over all of `gradients`, (*batch, in, out) each: (*batch, 1, 1)."""
    return torch.stack([value.square().sum(dim=(-2, -1), keepdim=True) for value in gradients.values()]).sum(dim=0)


def norm_factor(squared: Tensor, limit: float) -> Tensor:
    """limit / max(norm, limit) for the square of a norm.

    The square is limited, not its root, whose derivative at a gradient of zero is infinite.
    """
    return limit / squared.clamp(min=limit * limit).sqrt()


def clip_by_value(limit: float) -> UpdateRule:
    """Each entry of the gradients moved into -limit ... limit, as the public code of CAVIA and MMAML does, by 10.

    >>> clip_by_value(10.0)({}, {"w": torch.tensor([[-12.0, 3.0]])}, 0, {})[0]["w"].tolist()
    [[-10.0, 3.0]]
    """

    def update(rule_params: RuleParamsByStep, gradients: Params, step: int, state: Params) -> tuple[Params, Params]:
        return {key: gradient.clamp(-limit, limit) for key, gradient in gradients.items()}, state

    return update
