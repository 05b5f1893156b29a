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

from maml_cli.losses import Bend, PointLoss
from maml_cli.meta import Meta, num_tasks
from maml_cli.meta_gradients import MetaGrad, Weights
from maml_cli.model import Activation, Params, Slope
from maml_cli.tasks import Split, TaskBatch


class Network(NamedTuple):
    """A multilayer perceptron and its loss, with the derivatives of what is not linear in them."""

    layers: Sequence[str]
    activation: Activation
    slope: Slope
    loss: PointLoss
    slopes: Bend


class Rule(NamedTuple):
    """alpha * gradient, or with `curved` alpha * (M_in gradient M_out), on the parameters that are keys of `groups`.

    `groups` names the alpha of each; with `positive` the rule holds its logarithm. `learned` are the keys of the rule
    that have gradients.
    """

    groups: Mapping[str, str]
    positive: bool
    curved: bool
    learned: Collection[str]


class Pass(NamedTuple):
    """A pass forward and back: for each layer what goes in and dL/dz of what comes out; for each hidden one f'(z),
    f''(z) where it is not zero, and dL/dh. `errors` are those of the outputs, `bend` the second derivative of the loss
    in each."""

    inputs: list[Tensor]
    deltas: list[Tensor]
    slopes: list[Tensor]
    bends: list[Tensor | None]
    backs: list[Tensor]
    bend: Tensor | float
    errors: Tensor


class Step(NamedTuple):
    """What an inner step leaves for the way back: where it began, its pass and its gradients, each None unless kept."""

    params: Params
    ran: Pass | None
    slopes: Params | None


def adjoint_gradient(
    network: Network,
    rule: Rule,
    *,
    steps: int,
    weights: Weights,
    first_order_until: float = 0,
    recompute: bool = False,
) -> MetaGrad:
    """The meta-gradient of `steps` inner steps, as `query_gradient` has it.

    With `recompute` a step keeps only its parameters, and its pass is run again on the way back.
    """

    def meta_grad(meta: Meta, batch: TaskBatch, step: int) -> tuple[Tensor, Meta]:
        count = num_tasks(batch.support)
        support, query = (Split(*(part.flatten(0, 1) for part in split)) for split in (batch.support, batch.query))
        held = [_at_step(rule, meta.rule, inner_step, count) for inner_step in range(steps)]
        params, way = {key: value.detach() for key, value in meta.params.items()}, list[Step]()
        for values in held:
            ran = run(network, params, support)
            slopes = gradients(network, ran, rule.groups)
            way.append(Step(params, None if recompute else ran, slopes if rule.learned and not recompute else None))
            params = params | _moved(params, rule, values, slopes, count)
        losses, found = _query(network, params, query, factor=weights(step)[-1])
        by_step = []
        for values, (params, ran_then, slopes_then), factor in zip(
            held[::-1], way[::-1], weights(step)[-2::-1], strict=True
        ):
            ran = ran_then or run(network, params, support)
            if rule.learned:
                by_step.append(_rule_slopes(rule, values, slopes_then or gradients(network, ran, rule.groups), found))
            if step >= first_order_until:
                take_hessian(network, params, ran, _pulled(rule, values, found), found)
            if factor:
                early = _query(network, params, query, factor=factor)[1]
                found = {key: value + early[key] for key, value in found.items()}
        by_task = {key: _by_run(value, count) for key, value in found.items()}
        return _by_run(losses, count), Meta(by_task, _gathered(meta.rule, by_step[::-1], rule, count))

    return meta_grad


def run(network: Network, params: Params, points: Split) -> Pass:
    """The network at `points` (N, K, n), and the derivatives of each task's mean loss there."""
    value, inputs, slopes, bends = points.x, [points.x], list[Tensor](), list[Tensor | None]()
    for layer in network.layers[:-1]:
        before = _affine(value, params[f"{layer}.w"], params[f"{layer}.b"])
        value = network.activation(before)
        slope, bend = network.slope(before, value)
        inputs.append(value)
        slopes.append(slope)
        bends.append(bend)
    *_, head = network.layers
    errors = _affine(value, params[f"{head}.w"], params[f"{head}.b"]) - points.y
    first, second = network.slopes(errors)
    share = 1 / points.y[0].numel()
    deltas, backs = [first * share], list[Tensor]()
    for layer, slope in zip(network.layers[:0:-1], slopes[::-1], strict=True):
        backs.insert(0, _times(deltas[0], params[f"{layer}.w"].mT))
        deltas.insert(0, backs[0] * slope)
    return Pass(inputs, deltas, slopes, bends, backs, second * share, errors)


def gradients(network: Network, ran: Pass, keys: Collection[str]) -> Params:
    """dL/dparams of each task, for the parameters `keys`."""
    found = {}
    for layer, value, delta in zip(network.layers, ran.inputs, ran.deltas, strict=True):
        if f"{layer}.w" in keys:
            found[f"{layer}.w"] = _outer(value, delta)
            found[f"{layer}.b"] = delta.sum(dim=1, keepdim=True)
    return found


def take_hessian(network: Network, params: Params, ran: Pass, vector: Params, found: Params) -> None:
    """`found` - H `vector`, in place; the parameters that `vector` does not name count as zero in it.

    The derivative along `vector` of the pass `ran` at `params`: of its values forward, then of its deltas back.
    """
    changes, turns = list[Tensor | None]([None]), list[Tensor | None]()
    for layer, value, slope in zip(network.layers, ran.inputs, [*ran.slopes, None], strict=True):
        turn = None if changes[-1] is None else _times(changes[-1], params[f"{layer}.w"])
        if f"{layer}.w" in vector:
            own = _affine(value, vector[f"{layer}.w"], vector[f"{layer}.b"])
            turn = own if turn is None else own + turn
        turns.append(turn)
        changes.append(None if turn is None or slope is None else turn * slope)
    assert turns[-1] is not None, "nothing adapts"
    delta = turns[-1] * ran.bend
    for place in range(len(network.layers))[::-1]:
        weight, bias, change = f"{network.layers[place]}.w", f"{network.layers[place]}.b", changes[place]
        _take_outer(found[weight], ran.inputs[place], delta)
        found[bias].sub_(delta.sum(dim=1, keepdim=True))
        if change is not None:
            _take_outer(found[weight], change, ran.deltas[place])
        if place:
            back, turn, bend = _times(delta, params[weight].mT), turns[place - 1], ran.bends[place - 1]
            if weight in vector:
                back = _plus_product(back, ran.deltas[place], vector[weight].mT)
            delta = back * ran.slopes[place - 1]
            if turn is not None and bend is not None:
                delta = delta + ran.backs[place - 1] * bend * turn


def _query(network: Network, params: Params, query: Split, *, factor: float) -> tuple[Tensor, Params]:
    """The query losses at `params`, and their gradients times `factor`."""
    ran = run(network, params, query)
    found = gradients(network, ran, params)
    losses = network.loss(ran.errors).mean(dim=(-2, -1))
    return losses, found if factor == 1 else {key: factor * value for key, value in found.items()}


def _moved(params: Params, rule: Rule, values: Params, slopes: Params, count: int) -> Params:
    """Where an inner step leads: phi - alpha * (M_in g M_out)."""
    starts = {
        key: _for_tasks(params[key], count) if len(params[key]) < len(slopes[key]) else params[key] for key in slopes
    }
    return {
        key: torch.addcmul(starts[key], values[rule.groups[key]], _curved(rule, values, key, slope)[-1], value=-1)
        for key, slope in slopes.items()
    }


def _curved(rule: Rule, values: Params, key: str, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient G of a parameter, G M_out, and M_in G M_out."""
    if not rule.curved:
        return slope, slope, slope
    turned = slope @ values[f"{key}.out"]
    return slope, turned, values[f"{key}.in"] @ turned if f"{key}.in" in values else turned


def _pulled(rule: Rule, values: Params, found: Params) -> Params:
    """U^T lambda: M_in^T (alpha * lambda) M_out^T."""
    pulled = {key: values[group] * found[key] for key, group in rule.groups.items()}
    if rule.curved:
        pulled = {key: value @ values[f"{key}.out"].mT for key, value in pulled.items()}
        pulled = {
            key: values[f"{key}.in"].mT @ value if f"{key}.in" in values else value for key, value in pulled.items()
        }
    return pulled


def _rule_slopes(rule: Rule, values: Params, slopes: Params, found: Params) -> Params:
    """-lambda g^T on what the rule holds at one inner step: (N, ...) for each key that is learned."""
    gathered: Params = {}
    for key, group in rule.groups.items():
        alpha = values[group]
        slope, turned, curved = _curved(rule, values, key, slopes[key])
        if group in rule.learned:
            whole = found[key] * curved
            own = whole if alpha.shape[1:] == whole.shape[1:] else whole.sum(dim=(-2, -1), keepdim=True)
            own = -alpha * own if rule.positive else -own
            gathered[group] = gathered[group] + own if group in gathered else own
        if rule.curved:
            pulled = alpha * found[key]
            if f"{key}.in" in values:
                gathered[f"{key}.in"] = -pulled @ turned.mT
                slope = values[f"{key}.in"] @ slope
            gathered[f"{key}.out"] = -slope.mT @ pulled
    return gathered


def _gathered(rule: Params, by_step: Sequence[Params], about: Rule, count: int) -> Params:
    """The gradients of the rule, (R, B, S, ...): one for each inner step, or their sum where all share it."""
    found = {}
    for key in about.learned:
        parts = torch.stack([slopes[key] for slopes in by_step], dim=1)
        found[key] = _by_run(parts if rule[key].shape[1] > 1 else parts.sum(dim=1, keepdim=True), count)
    return found


def _at_step(about: Rule, rule: Params, step: int, count: int) -> Params:
    """What the rule holds at an inner step, for each task; alphas as they multiply."""
    values = {key: _for_tasks(value[:, min(step, value.shape[1] - 1)], count) for key, value in rule.items()}
    if about.positive:
        values |= {group: values[group].exp() for group in dict.fromkeys(about.groups.values())}
    return values


def _by_run(value: Tensor, count: int) -> Tensor:
    """(N, ...) -> (R, B, ...)."""
    return value.view(-1, count, *value.shape[1:])


def _for_tasks(value: Tensor, count: int) -> Tensor:
    """(R, ...) -> (N, ...); one run is left to broadcast."""
    return value if len(value) == 1 else value.repeat_interleave(count, dim=0)


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W + b. What tasks share multiplies the points of all of them at once: one large product for many small ones."""
    if weight.shape[-2] == 1 and _matches(x, weight):
        return torch.addcmul(bias, x, weight)
    if len(weight) == len(x):
        return torch.baddbmm(bias, x, weight)
    return torch.baddbmm(bias, x.reshape(len(weight), -1, x.shape[-1]), weight).view(*x.shape[:-1], -1)


def _times(x: Tensor, weight: Tensor) -> Tensor:
    if weight.shape[-2] == 1 and _matches(x, weight):
        return x * weight
    if len(weight) == len(x):
        return torch.bmm(x, weight)
    return torch.bmm(x.reshape(len(weight), -1, x.shape[-1]), weight).view(*x.shape[:-1], -1)


def _outer(x: Tensor, delta: Tensor) -> Tensor:
    """x^T delta, summed over the points of each task."""
    if delta.shape[-1] == 1:
        return (x * delta).sum(dim=1).unsqueeze(-1)
    return torch.bmm(x.mT, delta)


def _plus_product(value: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return value.addcmul_(x, weight) if weight.shape[-2] == 1 else value.baddbmm_(x, weight)


def _take_outer(value: Tensor, x: Tensor, delta: Tensor) -> None:
    if delta.shape[-1] == 1:
        value.sub_(_outer(x, delta))
    else:
        value.baddbmm_(x.mT, delta, alpha=-1)


def _matches(x: Tensor, weight: Tensor) -> bool:
    """Whether they broadcast."""
    return len(weight) in (1, len(x))
