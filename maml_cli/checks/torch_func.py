"""An independent implementation of the meta-gradients, for one task at a time, with torch.func.

Its inner loop is that of task_learner.py; it shares no derivative and no table of choices with the core.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from maml_cli.checks.task_learner import TaskLearner, make_task_learner
from maml_cli.config import Config
from maml_cli.core import MetaParams, Params, Points, TaskBatch, lookup
from maml_cli.experiment import Experiment

TaskGradient = Callable[[TaskLearner, MetaParams, TaskBatch, int], MetaParams]
"""(learner, meta_params, points of one task, outer step) -> its meta-gradient."""


def _unrolled(learner: TaskLearner, meta_params: MetaParams, task: TaskBatch, step: int) -> MetaParams:
    """The gradient of the weighted query losses along the path (MAML, FOMAML, MAML++)."""
    steps, until = learner.config.inner.steps, learner.config.outer.multi_step_loss_until
    share = max(0.0, 1 - step / until) / steps if until else 0.0
    weights = [0.0, *[share] * (steps - 1), 1 - share * (steps - 1)]

    def objective(meta_params: MetaParams) -> Tensor:
        path = learner.path(meta_params, [task.support] * steps)
        losses = [
            weight * learner.query_loss(meta_params.rule_params, params, task, inner_step)
            for inner_step, (weight, params) in enumerate(zip(weights, path, strict=True))
        ]
        return torch.stack(losses).sum()

    return grad(objective)(meta_params)  # type: ignore[no-any-return]


def _implicit(learner: TaskLearner, meta_params: MetaParams, task: TaskBatch, step: int) -> MetaParams:
    """By the implicit function theorem: d phi / d theta = -(d g / d phi)^-1 d g / d theta, g the inner gradient."""
    *_, adapted = learner.path(meta_params, [task.support] * learner.config.inner.steps)
    phi = {key: value.detach() for key, value in adapted.items() if learner.adapts(key)}

    def inner_gradient(phi: Params, params: Params) -> Tensor:
        start = learner.start(params)
        gradients = grad(lambda phi: learner.inner_loss(start | phi, start, task.support))(phi)
        return torch.cat([value.flatten() for value in gradients.values()])

    def query_loss(phi: Params, params: Params) -> Tensor:
        return learner.loss(learner.start(params) | phi, task.query)

    of_phi, of_params = grad(query_loss, argnums=(0, 1))(phi, meta_params.params)
    vector = torch.cat([value.flatten() for value in of_phi.values()])
    hessian_rows, cross_terms = jacrev(inner_gradient, argnums=(0, 1))(phi, meta_params.params)
    hessian = torch.cat([value.flatten(1) for value in hessian_rows.values()], dim=1)
    solution = torch.linalg.solve(hessian.mT, vector)
    return MetaParams(
        {key: of_params[key] - torch.tensordot(solution, cross_terms[key], 1) for key in meta_params.params}, {}
    )


def _reptile(learner: TaskLearner, meta_params: MetaParams, task: TaskBatch, step: int) -> MetaParams:
    """theta - phi, each inner step on the next points of the task, cyclically."""
    points, size, steps = _all_points(task), len(task.support.x), learner.config.inner.steps
    rows = [[(inner_step * size + k) % len(points.x) for k in range(size)] for inner_step in range(steps)]
    *_, adapted = learner.path(meta_params, [Points(points.x[chosen], points.y[chosen]) for chosen in rows])
    return MetaParams({key: value - adapted[key] for key, value in meta_params.params.items()}, {})


def _joint(learner: TaskLearner, meta_params: MetaParams, task: TaskBatch, step: int) -> MetaParams:
    return MetaParams(grad(learner.loss)(meta_params.params, _all_points(task)), {})


def _all_points(task: TaskBatch) -> Points:
    return Points(*(torch.cat(pair) for pair in zip(task.support, task.query, strict=True)))


class Order(NamedTuple):
    """A derivative of the query loss through the inner loop.

    gradient: the meta-gradient of one task.
    first_order: whether the gradients of inner steps count as constants at every outer step.
    """

    gradient: TaskGradient
    first_order: bool = False


ORDERS: dict[str, Order] = {
    "second": Order(_unrolled),
    "first": Order(_unrolled, first_order=True),
    "implicit": Order(_implicit),
}
"""Values of `inner.order`."""


def _order(config: Config) -> Order:
    return lookup(ORDERS, config.inner.order, "inner.order", "checks.torch_func.ORDERS")


META_GRADIENTS: dict[str, TaskGradient] = {
    "query": lambda learner, *arguments: _order(learner.config).gradient(learner, *arguments),
    "reptile": _reptile,
    "joint": _joint,
}
"""Values of `outer.meta_gradient`."""


def torch_func_gradient(
    config: Config, experiment: Experiment, meta_params: MetaParams, batch: TaskBatch, step: int
) -> MetaParams:
    """The meta-gradient of each task at outer step `step`, (R, B, ...), under the keys of what is learned."""
    first_order = _order(config).first_order or step < config.inner.first_order_until
    learner = make_task_learner(config, experiment.loss, experiment.predict, first_order=first_order)
    table = "checks.torch_func.META_GRADIENTS"
    task_gradient = lookup(META_GRADIENTS, config.outer.meta_gradient, "outer.meta_gradient", table)

    def of_task(meta_params: MetaParams, task: TaskBatch) -> MetaParams:
        return task_gradient(learner, meta_params, task, step)

    of_run = vmap(of_task, in_dims=(None, 0))
    params, rule_params = vmap(of_run)(meta_params, batch)
    learned = [key for keys in experiment.learned_keys.values() for key in keys if rule_params]
    return MetaParams(params, {key: rule_params[key] for key in learned})
