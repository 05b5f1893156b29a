"""An independent implementation of every learner, for one task at a time, with torch.func.

It shares the network, the loss and the names of parameters with the project's inner loop, but neither its steps, nor
their derivatives, nor its tables of choices: a choice that the tables here lack is refused. Plain rather than fast.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from maml_cli.config import Config
from maml_cli.core import MetaParams, Params, Points, TaskBatch, TaskLoss, lookup, map_tensors
from maml_cli.experiment import Experiment

ADAPTS: dict[str, Callable[[str], bool]] = {
    "all": lambda key: True,
    "head": lambda key: key.startswith("head"),
    "body": lambda key: key.startswith("hidden"),
    "context": lambda key: key == "context",
}
"""inner.adapt: whether the parameter of that name adapts."""

ALPHA_NAMES: dict[str, Callable[[str], str]] = {
    "scalar": lambda key: "alpha",
    "layer": lambda key: key.split(".")[0],
    "tensor": lambda key: key,
    "parameter": lambda key: key,
}
"""inner.alpha.per: name of a parameter -> name of its alpha."""

ALPHA_SIGNS: dict[str, Callable[[Tensor], Tensor]] = {"free": lambda value: value, "positive": torch.exp}
"""inner.alpha.sign: learned value -> alpha."""

InnerOptimizer = Callable[[Tensor, int, Tensor], tuple[Tensor, Tensor]]
"""(gradient, inner step, state) -> (update, next state), for one parameter; its state starts at zeros."""


def _sgd(gradient: Tensor, step: int, state: Tensor) -> tuple[Tensor, Tensor]:
    return gradient, state


def _adam(gradient: Tensor, step: int, state: Tensor) -> tuple[Tensor, Tensor]:
    state = 0.999 * state + 0.001 * gradient**2
    return gradient / torch.sqrt(state / (1 - 0.999 ** (step + 1)) + 1e-16), state


INNER_OPTIMIZERS: dict[str, InnerOptimizer] = {"sgd": _sgd, "adam": _adam}
"""inner.optimizer."""


def _kronecker(rule_params: Params, key: str, gradient: Tensor, index: int) -> Tensor:
    left = rule_params[f"{key}.in"][index] if key.endswith(".w") else torch.ones(1, 1, dtype=gradient.dtype)
    return torch.einsum("ij,jk,kl->il", left, gradient, rule_params[f"{key}.out"][index])


CURVATURES: dict[str, Callable[[Params, str, Tensor, int], Tensor]] = {
    "none": lambda rule_params, key, gradient, index: gradient,
    "kronecker": _kronecker,
}
"""inner.curvature: (rule_params, key, gradient, index on the axis of inner steps) -> preconditioned gradient."""


class TaskLearner(NamedTuple):
    """A learner of one task, without the axes of runs and tasks.

    config, loss: of the experiment; the loss of one task is a scalar.
    first_order: whether the gradients of inner steps count as constants.
    adapts, alpha_name, alpha, optimizer, precondition: the rows of the tables above for the config.
    """

    config: Config
    loss: TaskLoss
    first_order: bool
    adapts: Callable[[str], bool]
    alpha_name: Callable[[str], str]
    alpha: Callable[[Tensor], Tensor]
    optimizer: InnerOptimizer
    precondition: Callable[[Params, str, Tensor, int], Tensor]

    def start(self, params: Params) -> Params:
        """The parameters that a task starts from: the network's, and a context of zeros."""
        size = self.config.model.num_context
        return params | {"context": params["head.b"].new_zeros(1, size)} if size else params

    def inner_loss(self, params: Params, start: Params, points: Points) -> Tensor:
        """The loss with the proximal term."""
        squared_distances = [((params[key] - start[key]) ** 2).sum() for key in params if self.adapts(key)]
        return self.loss(params, points) + self.config.inner.proximal / 2 * sum(squared_distances)

    def path(self, meta_params: MetaParams, points: list[Points]) -> list[Params]:
        """The parameters after 0, 1, ... inner steps, one step on each of `points`."""
        start = self.start(meta_params.params)
        path, states = [start], {key: torch.zeros_like(value) for key, value in start.items()}
        for step, step_points in enumerate(points):
            gradients: Params = grad(self.inner_loss)(path[-1], start, step_points)
            changed = {}
            for key in filter(self.adapts, start):
                gradient = gradients[key].detach() if self.first_order else gradients[key]
                update, states[key] = self.update(meta_params.rule_params, key, gradient, step, states[key])
                changed[key] = path[-1][key] - update
            path.append(path[-1] | changed)
        return path

    def update(
        self, rule_params: Params, key: str, gradient: Tensor, step: int, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The update of one parameter at an inner step, and the next state of its optimiser."""
        inner = self.config.inner
        gradient = self.precondition(rule_params, key, gradient, step if inner.curvature_per_step else 0)
        direction, state = self.optimizer(gradient, step, state)
        alpha = rule_params[self.alpha_name(key)][step if inner.alpha.per_step else 0]
        return self.alpha(alpha) * direction, state


def _task_learner(config: Config, loss: TaskLoss, *, first_order: bool) -> TaskLearner:
    inner = config.inner
    return TaskLearner(
        config,
        loss,
        first_order,
        adapts=lookup(ADAPTS, inner.adapt, "inner.adapt", "checks.torch_func.ADAPTS"),
        alpha_name=lookup(ALPHA_NAMES, inner.alpha.per, "inner.alpha.per", "checks.torch_func.ALPHA_NAMES"),
        alpha=lookup(ALPHA_SIGNS, inner.alpha.sign, "inner.alpha.sign", "checks.torch_func.ALPHA_SIGNS"),
        optimizer=lookup(INNER_OPTIMIZERS, inner.optimizer, "inner.optimizer", "checks.torch_func.INNER_OPTIMIZERS"),
        precondition=lookup(CURVATURES, inner.curvature, "inner.curvature", "checks.torch_func.CURVATURES"),
    )


TaskGradient = Callable[[TaskLearner, MetaParams, Points, Points, int], MetaParams]
"""(learner, meta_params, support, query, outer step) -> the meta-gradient of one task."""


def _unrolled(learner: TaskLearner, meta_params: MetaParams, support: Points, query: Points, step: int) -> MetaParams:
    """The gradient of the weighted query losses along the path."""
    steps, until = learner.config.inner.steps, learner.config.outer.multi_step_loss_until
    share = max(0.0, 1 - step / until) / steps if until else 0.0
    weights = [0.0, *[share] * (steps - 1), 1 - share * (steps - 1)]

    def objective(meta_params: MetaParams) -> Tensor:
        path = learner.path(meta_params, [support] * steps)
        return torch.stack([w * learner.loss(params, query) for w, params in zip(weights, path, strict=True)]).sum()

    return grad(objective)(meta_params)  # type: ignore[no-any-return]


def _implicit(learner: TaskLearner, meta_params: MetaParams, support: Points, query: Points, step: int) -> MetaParams:
    """By the implicit function theorem: d phi / d theta = -(d g / d phi)^-1 d g / d theta, g the inner gradient."""
    *_, adapted = learner.path(meta_params, [support] * learner.config.inner.steps)
    phi = {key: value.detach() for key, value in adapted.items() if learner.adapts(key)}

    def inner_gradient(phi: Params, params: Params) -> Tensor:
        start = learner.start(params)
        gradients = grad(lambda moving: learner.inner_loss(start | moving, start, support))(phi)
        return torch.cat([value.flatten() for value in gradients.values()])

    def query_loss(phi: Params, params: Params) -> Tensor:
        return learner.loss(learner.start(params) | phi, query)

    of_phi, of_params = grad(query_loss, argnums=(0, 1))(phi, meta_params.params)
    vector = torch.cat([value.flatten() for value in of_phi.values()])
    hessian_rows, cross_terms = jacrev(inner_gradient, argnums=(0, 1))(phi, meta_params.params)
    hessian = torch.cat([value.flatten(1) for value in hessian_rows.values()], dim=1)
    solution = torch.linalg.solve(hessian.mT, vector)
    return MetaParams(
        {key: of_params[key] - torch.tensordot(solution, cross_terms[key], 1) for key in meta_params.params}, {}
    )


def _reptile(learner: TaskLearner, meta_params: MetaParams, support: Points, query: Points, step: int) -> MetaParams:
    """theta - phi, each inner step on the next points of the task, cyclically."""
    points, size, steps = _all_points(support, query), len(support.x), learner.config.inner.steps
    rows = [[(inner_step * size + k) % len(points.x) for k in range(size)] for inner_step in range(steps)]
    *_, adapted = learner.path(meta_params, [Points(points.x[chosen], points.y[chosen]) for chosen in rows])
    return MetaParams({key: value - adapted[key] for key, value in meta_params.params.items()}, {})


def _joint(learner: TaskLearner, meta_params: MetaParams, support: Points, query: Points, step: int) -> MetaParams:
    return MetaParams(grad(learner.loss)(meta_params.params, _all_points(support, query)), {})


def _all_points(support: Points, query: Points) -> Points:
    return Points(torch.cat([support.x, query.x]), torch.cat([support.y, query.y]))


def _query(learner: TaskLearner) -> TaskGradient:
    return lookup(ORDERS, learner.config.inner.order, "inner.order", "checks.torch_func.ORDERS")


ORDERS: dict[str, TaskGradient] = {"second": _unrolled, "first": _unrolled, "implicit": _implicit}
"""inner.order."""

META_GRADIENTS: dict[str, TaskGradient] = {
    "query": lambda learner, *task: _query(learner)(learner, *task),
    "reptile": _reptile,
    "joint": _joint,
}
"""outer.meta_gradient."""


def torch_func_gradient(
    config: Config, experiment: Experiment, meta_params: MetaParams, batch: TaskBatch, step: int
) -> MetaParams:
    """The per-task gradients (1, B, ...) of `config` at outer step `step`, for meta-parameters of one run."""
    first_order = config.inner.order == "first" or step < config.inner.first_order_until
    learner = _task_learner(config, experiment.loss, first_order=first_order)
    table = "checks.torch_func.META_GRADIENTS"
    task_gradient = lookup(META_GRADIENTS, config.outer.meta_gradient, "outer.meta_gradient", table)
    one_run = map_tensors(lambda value: value.squeeze(0), meta_params)
    tasks = [value.squeeze(0) for points in batch for value in points]

    def one_task(support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> tuple[Params, Params]:
        gradient = task_gradient(learner, one_run, Points(support_x, support_y), Points(query_x, query_y), step)
        return gradient.params, gradient.rule_params

    params, rule_params = vmap(one_task)(*tasks)
    learned = {key: rule_params[key] for keys in experiment.learned_keys.values() for key in keys if rule_params}
    return map_tensors(lambda value: value.unsqueeze(0), MetaParams(params, learned))
