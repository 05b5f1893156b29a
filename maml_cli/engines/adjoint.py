"""The meta-gradient of MAML by the adjoint method: exact, and several times as fast as autograd through the inner loop.

An inner step is phi_{s+1} = phi_s - alpha_s v_s, v_s = mu v_{s-1} + M_s g(phi_s), with g the gradient of the support
loss, mu the momentum, and M_s the linear map of a curvature: M_in and M_out around the gradient, else the identity. The
adjoints lambda_s = dL/dphi_s and kappa_s = -dL/dv_s of the query loss L start as its gradient at the adapted
parameters and as zero, and go back through the inner steps:

    kappa_s = alpha_s lambda_{s+1} + mu kappa_{s+1},        lambda_s = lambda_{s+1} - H(phi_s) M_s^T kappa_s,
    dL/dalpha_s = -lambda_{s+1} v_s,                        dL/dM_s = -kappa_s g(phi_s)^T,

H the Hessian of the support loss. Its product with a vector costs one more forward and backward pass and no Hessian
(Pearlmutter 1994, Fast exact multiplication by the Hessian). First-order MAML leaves the product out, so that lambda_s
= lambda_{s+1}. Where gradients are clipped, c(g) takes the place of g, and dc/dg that of the identity between H and
M_s^T. The multi-step loss of MAML++ adds w_s dL/dphi_s at each step. lambda_0 is the meta-gradient of the initial
parameters.

Shapes: R runs, B tasks in each, N = R * B tasks in all, along one axis; see derivatives.py.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core import MetaGradient, MetaParams, Params, Points, StepWeights, TaskBatch, map_tensors, num_tasks
from maml_cli.engines.derivatives import (
    PER_TASK,
    SHARED,
    ForwardBackward,
    Layer,
    NetworkSpec,
    forward_backward,
    gradients,
    subtract_hvp_,
    sum_over_tasks,
)
from maml_cli.engines.rule_derivatives import (
    RuleSpec,
    descend,
    precondition_transpose,
    repeat_for_tasks,
    rule_at_step,
    rule_gradients,
    stack_steps,
    velocities,
    velocity_adjoints,
)


class SavedStep(NamedTuple):
    """Data of an inner step for the backward sweep.

    layers: the parameters before the step.
    rule_params: the rule parameters of the step, (N, ...).
    intermediates: the passes of the support loss there; None: to be computed again.
    gradients: gradients of the support loss there; None: not needed, or to be computed again.
    velocity: v after the step; empty without momentum.
    """

    layers: Sequence[Layer]
    rule_params: Params
    intermediates: ForwardBackward | None
    gradients: Params | None
    velocity: Params


StoreStep = Callable[[SavedStep], SavedStep]
"""Data of an inner step -> as much of it as is stored until the backward sweep."""


def store_intermediates(saved: SavedStep) -> SavedStep:
    """Store everything: no pass runs twice."""
    return saved


def store_params(saved: SavedStep) -> SavedStep:
    """Gradient checkpointing: store parameters and velocity, and run the passes again in the backward sweep."""
    return saved._replace(intermediates=None, gradients=None)


class AdjointSpec(NamedTuple):
    """A learner whose meta-gradient the adjoint method computes.

    network: the network and its loss.
    rule: the update rule of the inner steps.
    num_steps: inner steps S, at least 1.
    step_weights: outer step -> weights of the query losses after 0, 1, ..., S inner steps.
    first_order_until: the outer step from which on the meta-gradient is second order.
    store: the data that an inner step stores for the backward sweep.
    """

    network: NetworkSpec
    rule: RuleSpec
    num_steps: int
    step_weights: StepWeights
    first_order_until: float = 0
    store: StoreStep = store_intermediates


def adjoint_gradient(spec: AdjointSpec) -> MetaGradient:
    """The meta-gradient of each task, as `query_gradient` computes it: losses (R, B) and gradients (R, B, ...)."""

    @torch.no_grad()
    def meta_gradient(meta_params: MetaParams, batch: TaskBatch, step: int) -> tuple[Tensor, MetaParams]:
        runs, tasks = batch.support.x.shape[:2]
        losses, result = _sweep(spec, meta_params, batch, step, spec.step_weights(step), rows=runs * tasks)
        by_task = map_tensors(lambda value: value.view(runs, tasks, *value.shape[1:]), result)
        return losses.view(runs, tasks, -1).mean(dim=2), by_task

    return meta_gradient


def mean_adjoint_gradient(spec: AdjointSpec) -> MetaGradient:
    """The mean of `adjoint_gradient` over the tasks of each run: losses (R,) and gradients (R, ...).

    Faster than the mean of the gradients of tasks: they are summed while the sweep goes back through the first inner
    step, whose parameters the tasks of a run share.
    """

    @torch.no_grad()
    def meta_gradient(meta_params: MetaParams, batch: TaskBatch, step: int) -> tuple[Tensor, MetaParams]:
        runs, tasks = batch.support.x.shape[:2]
        weights = [weight / tasks for weight in spec.step_weights(step)]
        losses, result = _sweep(spec, meta_params, batch, step, weights, rows=runs)
        rule_params = {key: sum_over_tasks(value, runs) for key, value in result.rule_params.items()}
        return losses.view(runs, -1).mean(dim=1), MetaParams(result.params, rule_params)

    return meta_gradient


def _sweep(
    spec: AdjointSpec, meta_params: MetaParams, batch: TaskBatch, step: int, weights: Sequence[float], *, rows: int
) -> tuple[Tensor, MetaParams]:
    """The inner steps forward, and the adjoint backward through them.

    Returns the loss of each query point (N, K, 1), and the meta-gradient: of the initial parameters (rows, ...), where
    `rows` is N, or R for the sum over the tasks of each run; of the rule (N, S, ...).
    """
    network, rule = spec.network, spec.rule
    support, query = (Points(*(tensor.flatten(0, 1) for tensor in points)) for points in batch)
    trajectory, adapted = _adapt(spec, meta_params, support, num_tasks(batch.support))
    losses, adjoint = _query_gradient(network, adapted, query, weights[-1])
    by_step, kappa = list[Params](), Params()
    for index in range(spec.num_steps)[::-1]:
        layers, rule_params, intermediates, grads, velocity = trajectory[index]
        intermediates = intermediates or forward_backward(network, layers, support)
        kappa = velocity_adjoints(rule, rule_params, adjoint, kappa if rule.momentum else {})
        if rule.needs_gradients:
            grads = grads or gradients(network, intermediates, rule.alpha_groups)
            by_step.insert(0, rule_gradients(rule, rule_params, rule.clipped(grads), velocity, adjoint, kappa))
        vector = precondition_transpose(rule, rule_params, kappa) if step >= spec.first_order_until else None
        if vector is not None and grads is not None and rule.clip:
            vector = rule.clip.derivative(grads, vector)
        if index == 0:
            adjoint = {key: sum_over_tasks(value, rows) for key, value in adjoint.items()}
        if vector is not None:
            subtract_hvp_(network, layers, intermediates, vector, adjoint)
        if weights[index]:
            early = _query_gradient(network, layers, query, weights[index])[1]
            adjoint = {key: value + sum_over_tasks(early[key], value.shape[0]) for key, value in adjoint.items()}
    return losses, MetaParams(adjoint, stack_steps(rule, meta_params.rule_params, by_step))


def _adapt(
    spec: AdjointSpec, meta_params: MetaParams, support: Points, tasks: int
) -> tuple[list[SavedStep], list[Layer]]:
    """The inner steps: the data of each for the backward sweep, and the adapted layers."""
    rule, params, trajectory, velocity = spec.rule, meta_params.params, list[SavedStep](), Params()
    own = {key: repeat_for_tasks(params[key], tasks) for key in rule.alpha_groups}
    for index in range(spec.num_steps):
        layers = _layers(spec, params, index, tasks)
        rule_params = rule_at_step(rule, meta_params.rule_params, index, tasks)
        intermediates = forward_backward(spec.network, layers, support)
        grads = gradients(spec.network, intermediates, rule.alpha_groups)
        velocity = velocities(rule, rule_params, rule.clipped(grads), velocity if rule.momentum else {})
        saved_grads, saved_velocity = grads if rule.needs_gradients else None, velocity if rule.momentum else {}
        trajectory.append(spec.store(SavedStep(layers, rule_params, intermediates, saved_grads, saved_velocity)))
        own = descend(rule, rule_params, own, velocity)
        params = params | own
    return trajectory, _layers(spec, params, spec.num_steps, tasks)


def _layers(spec: AdjointSpec, params: Params, inner_step: int, tasks: int) -> list[Layer]:
    """The layers before an inner step: the tasks of a run share all of them before the first, and from then on those
    that do not adapt."""
    adapted: Collection[str] = spec.rule.alpha_groups if inner_step else ()
    return [
        Layer(params[weight], params[bias], PER_TASK if weight in adapted or tasks == 1 else SHARED)
        for weight, bias in spec.network.layers
    ]


def _query_gradient(
    network: NetworkSpec, layers: Sequence[Layer], query: Points, weight: float
) -> tuple[Tensor, Params]:
    """The loss of each query point (N, K, 1), and the gradients (N, ...) of each task's mean loss times `weight`."""
    intermediates = forward_backward(network, layers, query, weight)
    keys = [key for layer in network.layers for key in layer]
    return network.loss(intermediates.residuals), gradients(network, intermediates, keys)
