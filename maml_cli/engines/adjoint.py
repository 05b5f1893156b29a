"""The meta-gradient by explicit adjoints: the derivative that `query_gradient` finds, without a graph to find it in.

An inner step is phi' = phi - U g(phi), where g is the gradient of the support loss and U, linear, what the rule makes
of it. Hence, from the last step back to the first, with lambda the derivative of the query loss in phi and H the
Hessian of the support loss,

    dL/dU = -lambda g^T,    lambda <- lambda - H U^T lambda.

The product of H with a vector is one more pass forward and back (Pearlmutter 1994, Fast exact multiplication by the
Hessian). What the passes need of one another is kept, and nothing computed twice; or, to save memory, only phi is kept.

Shapes: R runs, B tasks in each, N = R * B of them in one axis. Points are (N, K, n); what tasks have of their own is
(N, in, out), and what those of a run share, as the parameters before the first step and the rule, (R, in, out).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core import (
    Activation,
    ActivationDerivatives,
    LossDerivatives,
    MetaGradient,
    MetaParams,
    Params,
    PointLoss,
    Points,
    StepWeights,
    TaskBatch,
    map_tensors,
    num_tasks,
)


class NetworkSpec(NamedTuple):
    """A multilayer perceptron and its loss, with the derivatives of what is not linear in them. `layers` has the keys
    of the weights and biases of each layer."""

    layers: Sequence[tuple[str, str]]
    activation: Activation
    activation_derivatives: ActivationDerivatives
    loss: PointLoss
    loss_derivatives: LossDerivatives


class RuleSpec(NamedTuple):
    """alpha * gradient, or with `curved` alpha * (M_in gradient M_out), on the parameters that are keys of `groups`.

    `groups` names the alpha of each; with `positive` the rule holds its logarithm. `learned` are the keys of the rule
    that have gradients.
    """

    alpha_groups: Mapping[str, str]
    positive: bool
    has_curvature: bool
    learned_keys: Collection[str]


class ForwardBackward(NamedTuple):
    """A pass forward and back: for each layer what goes in and dL/dz of what comes out; for each hidden one f'(z),
    f''(z) where it is not zero, and dL/dh. `errors` are those of the outputs, `bend` the second derivative of the loss
    in each."""

    inputs: list[Tensor]
    deltas: list[Tensor]
    act_first: list[Tensor]
    act_second: list[Tensor | None]
    grad_hidden: list[Tensor]
    loss_second: Tensor | float
    errors: Tensor


class SavedStep(NamedTuple):
    """What an inner step leaves for the way back: where it began, its pass and its gradients, each None unless kept."""

    params: Params
    forward_backward: ForwardBackward | None
    gradients: Params | None


def adjoint_gradient(
    network: NetworkSpec,
    rule: RuleSpec,
    *,
    steps: int,
    weights: StepWeights,
    first_order_until: float = 0,
    recompute: bool = False,
    mean: bool = False,
) -> MetaGradient:
    """The meta-gradient of `steps` inner steps, as `query_gradient` has it; with `mean`, its mean over tasks: losses
    (R,) and gradients (R, ...), tasks added up where the way back reaches what they share.

    With `recompute` a step keeps only its parameters, and its pass is run again on the way back.
    """

    @torch.no_grad()
    def meta_grad(meta: MetaParams, batch: TaskBatch, step: int) -> tuple[Tensor, MetaParams]:
        count, runs = num_tasks(batch.support), len(batch.support.x)
        support, query = (Points(*(part.flatten(0, 1) for part in split)) for split in (batch.support, batch.query))
        held = [_rule_at_step(rule, meta.rule_params, inner_step, count) for inner_step in range(steps)]
        factors = [weight / count if mean else weight for weight in weights(step)]
        params, way = meta.params, list[SavedStep]()
        for values in held:
            ran = forward_backward(network, params, support)
            slopes = gradients(network, ran, rule.alpha_groups)
            way.append(
                SavedStep(params, None if recompute else ran, slopes if rule.learned_keys and not recompute else None)
            )
            params = params | _descend(params, rule, values, slopes, count)
        losses, found = _query(network, params, query, factor=factors[-1])
        by_step = []
        for inner_step in range(steps)[::-1]:
            values, (params, ran_then, slopes_then) = held[inner_step], way[inner_step]
            ran = ran_then or forward_backward(network, params, support)
            if rule.learned_keys:
                by_step.append(
                    _rule_gradients(rule, values, slopes_then or gradients(network, ran, rule.alpha_groups), found)
                )
            pulled = _rule_transpose(rule, values, found) if step >= first_order_until else None
            if mean and inner_step == 0:
                found = {key: _sum_over_tasks(value, runs) for key, value in found.items()}
            if pulled is not None:
                subtract_hvp_(network, params, ran, pulled, found)
            if factors[inner_step]:
                early = _query(network, params, query, factor=factors[inner_step])[1]
                found = {key: value + _sum_over_tasks(early[key], len(value)) for key, value in found.items()}
        of_rule = _stack_by_step(meta.rule_params, by_step[::-1], rule)
        if mean:
            return losses.view(runs, -1).mean(dim=1), MetaParams(
                found, {k: _sum_over_tasks(v, runs) for k, v in of_rule.items()}
            )
        by_task = map_tensors(lambda value: value.view(runs, -1, *value.shape[1:]), MetaParams(found, of_rule))
        return losses.view(runs, count, -1).mean(dim=2), by_task

    return meta_grad


def forward_backward(network: NetworkSpec, params: Params, points: Points, *, factor: float = 1) -> ForwardBackward:
    """The network at `points` (N, K, n), and the derivatives of each task's mean loss there, times `factor`."""
    value, inputs, slopes, bends = points.x, [points.x], list[Tensor](), list[Tensor | None]()
    for weight, bias in network.layers[:-1]:
        before = _affine(value, params[weight], params[bias])
        value = network.activation(before)
        slope, bend = network.activation_derivatives(before, value)
        inputs.append(value)
        slopes.append(slope)
        bends.append(bend)
    weight, bias = network.layers[-1]
    errors = _affine(value, params[weight], params[bias]) - points.y
    num_points, num_outputs = points.y.shape[1:]
    first, second = network.loss_derivatives(errors, factor / (num_points * num_outputs))
    deltas, backs = [first], list[Tensor]()
    for (weight, _), slope in zip(network.layers[:0:-1], slopes[::-1], strict=True):
        backs.insert(0, _matmul(deltas[0], params[weight].mT))
        deltas.insert(0, backs[0] * slope)
    return ForwardBackward(inputs, deltas, slopes, bends, backs, second, errors)


def gradients(network: NetworkSpec, ran: ForwardBackward, keys: Collection[str]) -> Params:
    """dL/dparams of each task, for the parameters `keys`."""
    found = {}
    for (weight, bias), value, delta in zip(network.layers, ran.inputs, ran.deltas, strict=True):
        if weight in keys:
            found[weight] = _outer(value, delta)
            found[bias] = delta.sum(dim=1, keepdim=True)
    return found


def subtract_hvp_(network: NetworkSpec, params: Params, ran: ForwardBackward, vector: Params, found: Params) -> None:
    """`found` - H `vector`, in place; the parameters that `vector` does not name count as zero in it.

    The derivative along `vector` of the pass `ran` at `params`: of its values forward, then of its deltas back.
    """
    changes, turns = list[Tensor | None]([None]), list[Tensor | None]()
    for (weight, bias), value, slope in zip(network.layers, ran.inputs, [*ran.act_first, None], strict=True):
        turn = None if changes[-1] is None else _matmul(changes[-1], params[weight])
        if weight in vector:
            own = _affine(value, vector[weight], vector[bias])
            turn = own if turn is None else own + turn
        turns.append(turn)
        changes.append(None if turn is None or slope is None else turn * slope)
    assert turns[-1] is not None, "nothing adapts"
    delta = turns[-1] * ran.loss_second
    for place in range(len(network.layers))[::-1]:
        (weight, bias), change = network.layers[place], changes[place]
        _subtract_outer_(found[weight], ran.inputs[place], delta)
        found[bias].sub_(_sum_over_tasks(delta.sum(dim=1, keepdim=True), len(found[bias])))
        if change is not None:
            _subtract_outer_(found[weight], change, ran.deltas[place])
        if place:
            back, turn, bend = _matmul(delta, params[weight].mT), turns[place - 1], ran.act_second[place - 1]
            if weight in vector:
                back = _add_matmul_(back, ran.deltas[place], vector[weight].mT)
            delta = back * ran.act_first[place - 1]
            if turn is not None and bend is not None:
                delta = delta + ran.grad_hidden[place - 1] * bend * turn


def _query(network: NetworkSpec, params: Params, query: Points, *, factor: float) -> tuple[Tensor, Params]:
    """The loss of each query point at `params`, and the gradients of their means times `factor`."""
    ran = forward_backward(network, params, query, factor=factor)
    return network.loss(ran.errors), gradients(network, ran, params)


def _descend(params: Params, rule: RuleSpec, values: Params, slopes: Params, count: int) -> Params:
    """Where an inner step leads: phi - alpha * (M_in g M_out)."""
    starts = {
        key: _repeat_for_tasks(params[key], count) if len(params[key]) < len(slopes[key]) else params[key]
        for key in slopes
    }
    return {
        key: torch.addcmul(
            starts[key], values[rule.alpha_groups[key]], _precondition(rule, values, key, slope)[-1], value=-1
        )
        for key, slope in slopes.items()
    }


def _precondition(rule: RuleSpec, values: Params, key: str, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient G of a parameter, G M_out, and M_in G M_out."""
    if not rule.has_curvature:
        return slope, slope, slope
    turned = slope @ values[f"{key}.out"]
    return slope, turned, values[f"{key}.in"] @ turned if f"{key}.in" in values else turned


def _rule_transpose(rule: RuleSpec, values: Params, found: Params) -> Params:
    """U^T lambda: M_in^T (alpha * lambda) M_out^T."""
    pulled = {key: values[group] * found[key] for key, group in rule.alpha_groups.items()}
    if rule.has_curvature:
        pulled = {key: value @ values[f"{key}.out"].mT for key, value in pulled.items()}
        pulled = {
            key: values[f"{key}.in"].mT @ value if f"{key}.in" in values else value for key, value in pulled.items()
        }
    return pulled


def _rule_gradients(rule: RuleSpec, values: Params, slopes: Params, found: Params) -> Params:
    """-lambda g^T on what the rule holds at one inner step: (N, ...) for each key that is learned."""
    gathered: Params = {}
    for key, group in rule.alpha_groups.items():
        alpha = values[group]
        slope, turned, curved = _precondition(rule, values, key, slopes[key])
        if group in rule.learned_keys:
            whole = found[key] * curved
            own = whole if alpha.shape[1:] == whole.shape[1:] else whole.sum(dim=(-2, -1), keepdim=True)
            own = -alpha * own if rule.positive else -own
            gathered[group] = gathered[group] + own if group in gathered else own
        if rule.has_curvature:
            pulled = alpha * found[key]
            if f"{key}.in" in values:
                gathered[f"{key}.in"] = -pulled @ turned.mT
                slope = values[f"{key}.in"] @ slope
            gathered[f"{key}.out"] = -slope.mT @ pulled
    return gathered


def _stack_by_step(rule: Params, by_step: Sequence[Params], about: RuleSpec) -> Params:
    """The gradients of the rule, (N, S, ...): one for each inner step, or their sum where all share it."""
    found = {}
    for key in about.learned_keys:
        parts = torch.stack([slopes[key] for slopes in by_step], dim=1)
        found[key] = parts if rule[key].shape[1] > 1 else parts.sum(dim=1, keepdim=True)
    return found


def _rule_at_step(about: RuleSpec, rule: Params, step: int, count: int) -> Params:
    """What the rule holds at an inner step, for each task; alphas as they multiply."""
    values = {key: _repeat_for_tasks(value[:, min(step, value.shape[1] - 1)], count) for key, value in rule.items()}
    if about.positive:
        values |= {group: values[group].exp() for group in dict.fromkeys(about.alpha_groups.values())}
    return values


def _sum_over_tasks(value: Tensor, runs: int) -> Tensor:
    """The sum over the tasks of each run: (N, ...) -> (R, ...)."""
    if len(value) == runs:
        return value
    return value.sum(dim=0, keepdim=True) if runs == 1 else value.view(runs, -1, *value.shape[1:]).sum(dim=1)


def _repeat_for_tasks(value: Tensor, count: int) -> Tensor:
    """(R, ...) -> (N, ...); one run is left to broadcast."""
    return value if len(value) == 1 else value.repeat_interleave(count, dim=0)


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W + b. What tasks share multiplies the points of all of them at once: one large product for many small ones."""
    if weight.shape[-2] == 1 and _broadcasts(x, weight):
        return torch.addcmul(bias, x, weight)
    if len(weight) == len(x):
        # One column is much faster as one row.
        return torch.baddbmm(bias, weight.mT, x.mT).mT if weight.shape[-1] == 1 else torch.baddbmm(bias, x, weight)
    return torch.baddbmm(bias, _merge_tasks(x, len(weight)), weight).view(*x.shape[:-1], -1)


def _matmul(x: Tensor, weight: Tensor) -> Tensor:
    if weight.shape[-2] == 1 and _broadcasts(x, weight):
        return x * weight
    if len(weight) == len(x):
        return torch.bmm(weight.mT, x.mT).mT if weight.shape[-1] == 1 else torch.bmm(x, weight)
    return torch.bmm(_merge_tasks(x, len(weight)), weight).view(*x.shape[:-1], -1)


def _outer(x: Tensor, delta: Tensor) -> Tensor:
    """x^T delta, summed over the points of each task."""
    return torch.bmm(delta.mT, x).mT if delta.shape[-1] == 1 else torch.bmm(x.mT, delta)


def _subtract_outer_(value: Tensor, x: Tensor, delta: Tensor) -> None:
    """`value` - x^T delta, in place; summed over the points of each run where `value` is of runs."""
    if len(value) < len(x):
        x, delta = _merge_tasks(x, len(value)), _merge_tasks(delta, len(value))
    if delta.shape[-1] == 1:
        value.mT.baddbmm_(delta.mT, x, alpha=-1)
    else:
        value.baddbmm_(x.mT, delta, alpha=-1)


def _add_matmul_(value: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return value.addcmul_(x, weight) if weight.shape[-2] == 1 else value.baddbmm_(x, weight)


def _merge_tasks(x: Tensor, runs: int) -> Tensor:
    """The points of all tasks of a run in one: (N, K, n) -> (R, B * K, n)."""
    return x.reshape(runs, -1, x.shape[-1])


def _broadcasts(x: Tensor, weight: Tensor) -> bool:
    """Whether they broadcast."""
    return len(weight) in (1, len(x))
