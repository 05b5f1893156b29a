"""Derivatives of the update rule of an inner step: phi - alpha * v, v <- mu v + M_in c(g) M_out.

`rule_params` of all inner steps are (R, S, ...), those of one inner step (N, ...), or (1, ...) for a single run; the
gradients and adjoints of tasks are (N, ...), N = R * B.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core import Params, clipping


class GradientClip(NamedTuple):
    """A limit on the gradients g of each task.

    apply: g -> c(g), the clipped gradients.
    derivative: (g, v) -> dc/dg v; the matrix dc/dg is symmetric.
    """

    apply: Callable[[Params], Params]
    derivative: Callable[[Params, Params], Params]


def norm_clip(limit: float) -> GradientClip:
    """c(g) = f g, f = limit / max(|g|, limit); dc/dg v = f (v - g (g.v) / |g|^2) where |g| > limit, else v."""

    def derivative(grads: Params, vector: Params) -> Params:
        squared = clipping.squared_norm(grads)
        factor = clipping.norm_factor(squared, limit)
        products = [(grads[key] * value).sum(dim=(-2, -1), keepdim=True) for key, value in vector.items()]
        along = torch.where(squared > limit * limit, sum(products) / squared, 0.0)
        return {key: factor * (value - along * grads[key]) for key, value in vector.items()}

    return GradientClip(lambda grads: clipping.clip_by_norm(limit)({}, grads, 0, {})[0], derivative)


def value_clip(limit: float) -> GradientClip:
    """c(g) = g with entries moved into -limit ... limit; dc/dg v = v where they are within, else 0."""
    return GradientClip(
        lambda grads: clipping.clip_by_value(limit)({}, grads, 0, {})[0],
        lambda grads, vector: {key: torch.where(grads[key].abs() <= limit, vector[key], 0.0) for key in vector},
    )


class RuleSpec(NamedTuple):
    """The update alpha * v of an inner step, v <- mu v + M_in c(g) M_out, c a limit on the gradients g, M linear.

    alpha_groups: the key of the alpha of each parameter that adapts.
    positive: whether the rule parameters hold log(alpha).
    has_curvature: whether there are factors M_in and M_out.
    learned_keys: the keys of the rule parameters that have gradients.
    clip: c; None: no limit.
    momentum: mu.
    """

    alpha_groups: Mapping[str, str]
    positive: bool
    has_curvature: bool
    learned_keys: Collection[str]
    clip: GradientClip | None = None
    momentum: float = 0.0

    def clipped(self, grads: Params) -> Params:
        """c(g)."""
        return grads if self.clip is None else self.clip.apply(grads)

    @property
    def needs_gradients(self) -> bool:
        """Whether derivatives of the rule depend on the gradients."""
        return bool(self.learned_keys) or self.clip is not None


def velocities(rule: RuleSpec, rule_params: Params, grads: Params, last: Params) -> Params:
    """mu v + M_in g M_out for the velocities v of the step before, `last`, which is empty at the first."""
    result = {key: _precondition(rule, rule_params, key, grad)[-1] for key, grad in grads.items()}
    return {key: value + rule.momentum * last[key] for key, value in result.items()} if last else result


def descend(rule: RuleSpec, rule_params: Params, params: Params, velocity: Params) -> Params:
    """An inner step: phi - alpha * v."""
    return {
        key: torch.addcmul(params[key], rule_params[rule.alpha_groups[key]], value, value=-1)
        for key, value in velocity.items()
    }


def _precondition(rule: RuleSpec, rule_params: Params, key: str, grad: Tensor) -> tuple[Tensor, Tensor]:
    """G M_out and M_in G M_out for the gradient G of a parameter."""
    if not rule.has_curvature:
        return grad, grad
    right = grad @ rule_params[f"{key}.out"]
    return right, rule_params[f"{key}.in"] @ right if f"{key}.in" in rule_params else right


def velocity_adjoints(rule: RuleSpec, rule_params: Params, adjoint: Params, later: Params) -> Params:
    """kappa = -dL/dv = alpha * lambda + mu kappa_later, of the parameters that adapt.

    later: kappa of the step after, on whose velocity v acts too; empty at the last.
    """
    result = {key: rule_params[group] * adjoint[key] for key, group in rule.alpha_groups.items()}
    return {key: value + rule.momentum * later[key] for key, value in result.items()} if later else result


def precondition_transpose(rule: RuleSpec, rule_params: Params, vector: Params) -> Params:
    """M_in^T v M_out^T of the parameters that adapt."""
    if not rule.has_curvature:
        return vector
    result = {key: value @ rule_params[f"{key}.out"].mT for key, value in vector.items()}
    return {
        key: rule_params[f"{key}.in"].mT @ value if f"{key}.in" in rule_params else value
        for key, value in result.items()
    }


def rule_gradients(
    rule: RuleSpec, rule_params: Params, grads: Params, velocity: Params, adjoint: Params, kappa: Params
) -> Params:
    """-lambda v in terms of alpha, and -kappa g^T in terms of M_in and M_out, at one inner step: (N, ...) for each
    learned key. An empty `velocity` stands for M_in g M_out."""
    result: Params = {}
    for key, group in rule.alpha_groups.items():
        alpha, grad = rule_params[group], grads[key]
        right, preconditioned = _precondition(rule, rule_params, key, grad)
        if group in rule.learned_keys:
            by_entry = adjoint[key] * (velocity[key] if velocity else preconditioned)
            has_own_entries = alpha.shape[1:] == by_entry.shape[1:]
            total = by_entry if has_own_entries else by_entry.sum(dim=(-2, -1), keepdim=True)
            total = -alpha * total if rule.positive else -total
            result[group] = result[group] + total if group in result else total
        if rule.has_curvature:
            if f"{key}.in" in rule_params:
                result[f"{key}.in"] = -kappa[key] @ right.mT
                grad = rule_params[f"{key}.in"] @ grad
            result[f"{key}.out"] = -grad.mT @ kappa[key]
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
    return value if value.shape[0] == 1 else value.repeat_interleave(tasks, dim=0)
