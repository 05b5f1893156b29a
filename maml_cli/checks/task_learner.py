"""An independent implementation of the inner loop, for one task at a time, with torch.func.

It shares the network, the loss and the names of parameters with the project's inner loop, but neither its steps, nor
their derivatives, nor its tables of choices: a choice that the tables here lack is refused. Plain rather than fast.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad

from maml_cli.config import Config
from maml_cli.core import MetaParams, Params, Points, Predict, TaskBatch, TaskLoss, lookup

ADAPTS: dict[str, Callable[[str], bool]] = {
    "all": lambda key: True,
    "head": lambda key: key.startswith("head"),
    "body": lambda key: key.startswith("hidden"),
    "context": lambda key: key == "context",
}
"""Values of `inner.adapt`: whether the parameter of that name adapts."""

ALPHA_NAMES: dict[str, Callable[[str], str]] = {
    "scalar": lambda key: "alpha",
    "layer": lambda key: key.split(".")[0],
    "tensor": lambda key: key,
    "parameter": lambda key: key,
}
"""Values of `inner.alpha.per`: name of a parameter -> name of its alpha."""

ALPHA_SIGNS: dict[str, Callable[[Tensor], Tensor]] = {"free": lambda value: value, "positive": torch.exp}
"""Values of `inner.alpha.sign`: learned value -> alpha."""

InnerOptimizer = Callable[[Tensor, int, Tensor], tuple[Tensor, Tensor]]
"""(gradient, inner step, state) -> (update, next state), for one parameter; its state starts at zeros."""


def _sgd(gradient: Tensor, step: int, state: Tensor) -> tuple[Tensor, Tensor]:
    return gradient, state


def _adam(gradient: Tensor, step: int, state: Tensor) -> tuple[Tensor, Tensor]:
    state = 0.999 * state + 0.001 * gradient**2
    return gradient / torch.sqrt(state / (1 - 0.999 ** (step + 1)) + 1e-16), state


RuleState = tuple[Tensor, list[Tensor]]
"""The state of one parameter: of its optimiser, and the optimiser's directions of all inner steps, the last first."""

INNER_OPTIMIZERS: dict[str, InnerOptimizer] = {"sgd": _sgd, "adam": _adam}
"""Values of `inner.optimizer`."""


def _kronecker(rule_params: Params, key: str, gradient: Tensor, index: int) -> Tensor:
    left = rule_params[f"{key}.in"][index] if key.endswith(".w") else torch.ones(1, 1, dtype=gradient.dtype)
    return torch.einsum("ij,jk,kl->il", left, gradient, rule_params[f"{key}.out"][index])


Precondition = Callable[[Params, str, Tensor, int], Tensor]
"""(rule_params, key, gradient, index on the axis of inner steps) -> preconditioned gradient."""

CURVATURES: dict[str, Precondition] = {
    "none": lambda rule_params, key, gradient, index: gradient,
    "kronecker": _kronecker,
}
"""Values of `inner.curvature`."""


class TaskLearner(NamedTuple):
    """A learner of one task, without the axes of runs and tasks.

    config, loss, predict: of the experiment; the loss of one task is a scalar.
    is_ridge: whether the head is solved for.
    first_order: whether the gradients of inner steps count as constants.
    adapts, alpha_name, alpha, optimizer, precondition: the rows of the tables above for the config.
    """

    config: Config
    loss: TaskLoss
    first_order: bool
    predict: Predict
    is_ridge: bool
    adapts: Callable[[str], bool]
    alpha_name: Callable[[str], str]
    alpha: Callable[[Tensor], Tensor]
    optimizer: InnerOptimizer
    precondition: Precondition

    def start(self, params: Params) -> Params:
        """The parameters that a task starts from: the network's, and a context of zeros unless it is learned."""
        size = 0 if self.config.model.context_learned else self.config.model.num_context
        return params | {"context": params["head.b"].new_zeros(1, size)} if size else params

    def inner_loss(self, params: Params, start: Params, points: Points) -> Tensor:
        """The loss with the proximal term."""
        squared_distances = [((params[key] - start[key]) ** 2).sum() for key in params if self.adapts(key)]
        return self.loss(params, points) + self.config.inner.proximal / 2 * sum(squared_distances)

    def solved(self, params: Params, start: Params, points: Points, log_penalty: Tensor) -> Params:
        """`params` with the head of least squares with penalties, by the normal equations of all its weights."""
        inputs = self.design(params, points.x)
        penalties = torch.exp(log_penalty).squeeze(-1) * torch.eye(inputs.shape[-1], dtype=inputs.dtype)
        prior = torch.cat([start["head.w"], start["head.b"]])
        head = torch.linalg.solve(inputs.T @ inputs + penalties, inputs.T @ points.y + penalties @ prior)
        return params | {"head.w": head[:-1], "head.b": head[-1:]}

    def design(self, params: Params, x: Tensor) -> Tensor:
        """The features of the last hidden layer, each the output of a head that reads it alone, and a 1."""
        size = params["head.w"].shape[0]
        readers = {"head.w": torch.eye(size, dtype=x.dtype), "head.b": torch.zeros(1, size, dtype=x.dtype)}
        return torch.cat([self.predict(params | readers, x), torch.ones_like(x[:, :1])], dim=1)

    def profile_loss(self, params: Params, start: Params, points: Points, log_penalty: Tensor) -> Tensor:
        """The loss with penalties at the head that is solved for, per point."""
        solved = self.solved(params, start, points, log_penalty)
        squares = torch.cat([(solved[key] - start[key]) ** 2 for key in ("head.w", "head.b")])
        return self.loss(solved, points) + (torch.exp(log_penalty) * squares).sum() / len(points.x)

    def path(self, meta_params: MetaParams, points: list[Points]) -> list[Params]:
        """The parameters after 0, 1, ... inner steps, one step on each of `points`."""
        start = self.start(meta_params.params)
        path = [start]
        states: dict[str, RuleState] = {key: (torch.zeros_like(value), []) for key, value in start.items()}
        adapts = [key for key in start if self.adapts(key) and not (self.is_ridge and key.startswith("head"))]
        for step, step_points in enumerate(points):
            params = path[-1]
            if not adapts:
                path.append(params)
                continue
            gradients: Params = grad(partial(self.step_loss, meta_params.rule_params, step))(params, start, step_points)
            factor = self.clip_factor(torch.cat([gradients[key].flatten() for key in adapts]))
            adapted = {}
            for key in adapts:
                gradient = self.clip_entries(factor * gradients[key])
                gradient = gradient.detach() if self.first_order else gradient
                update, states[key] = self.update(meta_params.rule_params, key, gradient, step, states[key])
                adapted[key] = params[key] - update
            path.append(params | adapted)
        if not self.is_ridge:
            return path
        penalty = meta_params.rule_params["ridge"][0]
        return path[:1] + [self.solved(body, start, own, penalty) for body, own in zip(path[1:], points, strict=True)]

    def step_loss(self, rule_params: Params, step: int, params: Params, start: Params, points: Points) -> Tensor:
        """The loss of an inner step."""
        if self.is_ridge:
            return self.profile_loss(params, start, points, rule_params["ridge.body"][step])
        return self.inner_loss(params, start, points)

    def query_loss(self, rule_params: Params, params: Params, task: TaskBatch, step: int) -> Tensor:
        """The loss on the query points after an inner step.

        With noise it is the negative log-likelihood of each query target in the Gaussian process of the features: the
        covariance of two targets before adapting is sigma^2 times the product of their features, divided by the
        penalties, and sigma^2 more of a target with itself.
        """
        if self.config.inner.ridge.noise is None:
            return self.loss(params, task.query)
        variance = torch.exp(2 * rule_params["ridge.noise"].squeeze()) + 1e-6
        roots = torch.exp(-0.5 * rule_params["ridge"][0]).squeeze(-1)
        support, query = (self.design(params, points.x) * roots for points in task)
        prior = variance * (query @ query.T)
        if step:
            cross, among = variance * (query @ support.T), variance * (support @ support.T)
            noisy = among + variance * torch.eye(len(among), dtype=among.dtype)
            prior = prior - cross @ torch.linalg.solve(noisy, cross.T)
        std = torch.sqrt(torch.diagonal(prior) + variance)
        distance = (task.query.y - self.predict(params, task.query.x))[:, 0] / std
        return (distance**2 / 2 + torch.log(std)).mean() + math.log(2 * math.pi) / 2

    def clip_factor(self, gradient: Tensor) -> Tensor:
        """The factor on the gradients of a task whose norm is too large, 1 for others."""
        limit = self.config.inner.clip_norm
        if limit is None:
            return torch.ones((), dtype=gradient.dtype)
        is_long = gradient.norm() > limit
        return torch.where(is_long, limit / torch.where(is_long, gradient, 1.0).norm(), 1.0)

    def clip_entries(self, gradient: Tensor) -> Tensor:
        """The gradient with its entries within the limits."""
        limit = self.config.inner.clip_value
        return gradient if limit is None else torch.where(gradient.abs() <= limit, gradient, limit * gradient.sign())

    def update(
        self, rule_params: Params, key: str, gradient: Tensor, step: int, state: RuleState
    ) -> tuple[Tensor, RuleState]:
        """The update of one parameter at an inner step, and the next state: momentum^n of the direction n steps ago."""
        inner = self.config.inner
        gradient = self.precondition(rule_params, key, gradient, step if inner.curvature_per_step else 0)
        direction, optimizer_state = self.optimizer(gradient, step, state[0])
        directions = [direction, *state[1]]
        velocity = sum((inner.momentum**n * old for n, old in enumerate(directions)), torch.zeros_like(direction))
        alpha = rule_params[self.alpha_name(key)][step if inner.alpha.per_step else 0]
        return inner.alpha.scale * self.alpha(alpha) * velocity, (optimizer_state, directions)


HEADS: dict[str, bool] = {"gradient": False, "ridge": True}
"""Values of `inner.head`: whether the head is solved for."""


def make_task_learner(config: Config, loss: TaskLoss, predict: Predict, *, first_order: bool) -> TaskLearner:
    """The learner of `config`; raises NotImplementedError for a choice that a table lacks."""
    inner = config.inner
    return TaskLearner(
        config,
        loss,
        first_order,
        predict,
        is_ridge=lookup(HEADS, inner.head, "inner.head", "checks.task_learner.HEADS"),
        adapts=lookup(ADAPTS, inner.adapt, "inner.adapt", "checks.task_learner.ADAPTS"),
        alpha_name=lookup(ALPHA_NAMES, inner.alpha.per, "inner.alpha.per", "checks.task_learner.ALPHA_NAMES"),
        alpha=lookup(ALPHA_SIGNS, inner.alpha.sign, "inner.alpha.sign", "checks.task_learner.ALPHA_SIGNS"),
        optimizer=lookup(INNER_OPTIMIZERS, inner.optimizer, "inner.optimizer", "checks.task_learner.INNER_OPTIMIZERS"),
        precondition=lookup(CURVATURES, inner.curvature, "inner.curvature", "checks.task_learner.CURVATURES"),
    )
