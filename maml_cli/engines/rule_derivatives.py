"""Derivatives of the update rule of an inner step: phi - U g, U the map alpha * (M_in g M_out).

`rule_params` of all inner steps are (R, S, ...), those of one inner step (N, ...), or (1, ...) for a single run; the
gradients and adjoints of tasks are (N, ...), N = R * B.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core import Params, update_rules


class GradientClip(NamedTuple):
    """A limit on the gradients g of each task, before U.

    apply: g -> c(g), the clipped gradients.
    derivative: (g, v) -> dc/dg v; the matrix dc/dg is symmetric.
    """

    apply: Callable[[Params], Params]
    derivative: Callable[[Params, Params], Params]


def norm_clip(limit: float) -> GradientClip:
    """c(g) = f g, f = limit / max(|g|, limit); dc/dg v = f (v - g (g.v) / |g|^2) where |g| > limit, else v."""

    def derivative(grads: Params, vector: Params) -> Params:
        squared = update_rules.squared_norm(grads)
        factor = update_rules.norm_factor(squared, limit)
        products = [(grads[key] * value).sum(dim=(-2, -1), keepdim=True) for key, value in vector.items()]
        along = torch.where(squared > limit * limit, sum(products) / squared, 0.0)
        return {key: factor * (value - along * grads[key]) for key, value in vector.items()}

    return GradientClip(lambda grads: update_rules.clip_by_norm(limit)({}, grads, 0, {})[0], derivative)


def value_clip(limit: float) -> GradientClip:
    """c(g) = g with entries moved into -limit ... limit; dc/dg v = v where they are within, else 0."""
    return GradientClip(
        lambda grads: update_rules.clip_by_value(limit)({}, grads, 0, {})[0],
        lambda grads, vector: {key: torch.where(grads[key].abs() <= limit, vector[key], 0.0) for key in vector},
    )


class RuleSpec(NamedTuple):
    """The update U c(g) of an inner step, c a limit on the gradients g, U linear: alpha * g or alpha * (M_in g M_out).

    alpha_groups: the key of the alpha of each parameter that adapts.
    positive: whether the rule parameters hold log(alpha).
    has_curvature: whether there are factors M_in and M_out.
    learned_keys: the keys of the rule parameters that have gradients.
    clip: c; None: no limit.
    """

    alpha_groups: Mapping[str, str]
    positive: bool
    has_curvature: bool
    learned_keys: Collection[str]
    clip: GradientClip | None = None

    def clipped(self, grads: Params) -> Params:
        """c(g)."""
        return grads if self.clip is None else self.clip.apply(grads)

    @property
    def needs_gradients(self) -> bool:
        """Whether derivatives of the rule depend on the gradients."""
        return bool(self.learned_keys) or self.clip is not None


def descend(rule: RuleSpec, rule_params: Params, params: Params, grads: Params) -> Params:
    """An inner step: phi - alpha * (M_in g M_out)."""
    return {
        key: torch.addcmul(
            params[key], rule_params[rule.alpha_groups[key]], _precondition(rule, rule_params, key, grad)[-1], value=-1
        )
        for key, grad in grads.items()
    }


def _precondition(rule: RuleSpec, rule_params: Params, key: str, grad: Tensor) -> tuple[Tensor, Tensor]:
    """G M_out and M_in G M_out for the gradient G of a parameter."""
    if not rule.has_curvature:
        return grad, grad
    right = grad @ rule_params[f"{key}.out"]
    return right, rule_params[f"{key}.in"] @ right if f"{key}.in" in rule_params else right


def rule_transpose(rule: RuleSpec, rule_params: Params, adjoint: Params) -> Params:
    """U^T lambda = M_in^T (alpha * lambda) M_out^T of the parameters that adapt."""
    result = {key: rule_params[group] * adjoint[key] for key, group in rule.alpha_groups.items()}
    if rule.has_curvature:
        result = {key: value @ rule_params[f"{key}.out"].mT for key, value in result.items()}
        result = {
            key: rule_params[f"{key}.in"].mT @ value if f"{key}.in" in rule_params else value
            for key, value in result.items()
        }
    return result


def rule_gradients(rule: RuleSpec, rule_params: Params, grads: Params, adjoint: Params) -> Params:
    """-lambda g^T in terms of alpha, M_in and M_out at one inner step: (N, ...) for each learned key."""
    result: Params = {}
    for key, group in rule.alpha_groups.items():
        alpha, grad = rule_params[group], grads[key]
        right, preconditioned = _precondition(rule, rule_params, key, grad)
        if group in rule.learned_keys:
            by_entry = adjoint[key] * preconditioned
            has_own_entries = alpha.shape[1:] == by_entry.shape[1:]
            total = by_entry if has_own_entries else by_entry.sum(dim=(-2, -1), keepdim=True)
            total = -alpha * total if rule.positive else -total
            result[group] = result[group] + total if group in result else total
        if rule.has_curvature:
            scaled = alpha * adjoint[key]
            if f"{key}.in" in rule_params:
                result[f"{key}.in"] = -scaled @ right.mT
                grad = rule_params[f"{key}.in"] @ grad
            result[f"{key}.out"] = -grad.mT @ scaled
    return result


def stack_steps(rule: RuleSpec, rule_params: Params, by_step: Sequence[Params]) -> Params:
    """The gradients of the rule, (N, S, ...); (N, 1, ...), their sum, where inner steps share a parameter."""
    result = {}
    for key in rule.learned_keys:
        stacked = torch.stack([grads[key] for grads in by_step], dim=1)
        result[key] = stacked if rule_params[key].shape[1] > 1 else stacked.sum(dim=1, keepdim=True)
    return result


def rule_at_step(rule: RuleSpec, rule_params: Params, inner_step: int, tasks: int) -> Params:
    """The rule parameters (R, S, ...) at one inner step, for each task; alphas themselves in place of logarithms."""
    values = {
        key: repeat_for_tasks(value[:, min(inner_step, value.shape[1] - 1)], tasks)
        for key, value in rule_params.items()
    }
    if rule.positive:
        values |= {group: values[group].exp() for group in dict.fromkeys(rule.alpha_groups.values())}
    return values


def repeat_for_tasks(value: Tensor, tasks: int) -> Tensor:
    """(R, ...) -> (N, ...); a single run is left to broadcast."""
    return value if len(value) == 1 else value.repeat_interleave(tasks, dim=0)
