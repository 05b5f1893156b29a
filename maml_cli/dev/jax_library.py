"""The learners of the benchmark in JAX: one compiled scan over many outer steps, vmap over tasks in each.

As an expert would write them: all tasks of a call are drawn at once, the optimiser sees one flat vector, and the state
of a call is donated to it.
"""

import math
from itertools import accumulate, pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax
import torch
from torch import Tensor

from maml_cli.dev.learner import Learner, Problem, TaskPoints

STEPS_PER_CALL = 1000


def jax_learner(problem: Problem, *, hessian_vector_products: bool = False) -> Learner:
    """A learner whose `step` is one compiled scan of many outer steps.

    The meta-gradient is that of the query loss, by gradients of gradients, or with `hessian_vector_products` goes back
    through the inner steps by forward mode over reverse mode.
    """
    shapes = [value.T.shape for value in problem.values]
    bounds = [0, *accumulate(map(math.prod, shapes))]
    optimizer = optax.adam(problem.lr)
    start = jnp.concatenate([jnp.asarray(value.T.numpy()).reshape(-1) for value in problem.values])

    def unflatten(flat: Any) -> list[Any]:
        return [flat[a:b].reshape(shape) for (a, b), shape in zip(pairwise(bounds), shapes, strict=True)]

    def meta_gradient(flat: Any, points: Any) -> Any:
        if not hessian_vector_products:
            return jax.grad(lambda flat: _over_tasks(query_loss, unflatten(flat), points, problem).mean())(flat)
        gradients = _over_tasks(gradient_by_products, unflatten(flat), points, problem)
        return jnp.concatenate([gradient.mean(0).reshape(-1) for gradient in gradients])

    def outer_step(learner: Any, points: Any) -> Any:
        flat, state = learner
        updates, state = optimizer.update(meta_gradient(flat, points), state)
        return (optax.apply_updates(flat, updates), state), None

    def many_steps(learner: Any, key: Any) -> Any:
        key, used = jax.random.split(key)
        return jax.lax.scan(outer_step, learner, sample(problem, used))[0], key

    scan = jax.jit(many_steps, donate_argnums=0)
    carry = [((jnp.array(start), optimizer.init(start)), jax.random.PRNGKey(0))]

    def step() -> None:
        carry[0] = jax.block_until_ready(scan(*carry[0]))

    def gradient(points: TaskPoints) -> list[Tensor]:
        flat = jax.jit(meta_gradient)(start, tuple(jnp.asarray(values.numpy()) for values in points))
        return [torch.tensor(value.tolist()).T for value in unflatten(flat)]

    return Learner(gradient, step, STEPS_PER_CALL)


def network(weights: Any, x: Any) -> Any:
    """The output of the network at x."""
    *hidden, (weight, bias) = zip(weights[::2], weights[1::2], strict=True)
    for w, b in hidden:
        x = jax.nn.relu((x * w if w.shape[0] == 1 else x @ w) + b)
    return x @ weight + bias


def mean_squared_error(weights: Any, x: Any, y: Any) -> Any:
    """The loss of both loops."""
    return ((network(weights, x) - y) ** 2).mean()


def query_loss(problem: Problem, values: Any, support_x: Any, support_y: Any, query_x: Any, query_y: Any) -> Any:
    """The query loss of a task after the inner steps, in a loop that XLA may fuse across."""
    weights, alphas = problem.split(values)
    for step_alphas in alphas:
        gradients = jax.grad(mean_squared_error)(weights, support_x, support_y)
        weights = _descend(weights, step_alphas, gradients)
    return mean_squared_error(weights, query_x, query_y)


def gradient_by_products(
    problem: Problem, values: Any, support_x: Any, support_y: Any, query_x: Any, query_y: Any
) -> Any:
    """The gradient of `query_loss`: the adjoint v goes back through an inner step as v - H (alpha v)."""
    weights, alphas = problem.split(values)
    gradient_at = jax.grad(lambda weights: mean_squared_error(weights, support_x, support_y))
    steps = []
    for step_alphas in alphas:
        gradients = gradient_at(weights)
        steps.append((weights, step_alphas, gradients))
        weights = _descend(weights, step_alphas, gradients)
    adjoint = jax.grad(mean_squared_error)(weights, query_x, query_y)
    alpha_gradients: list[Any] = []
    for before, step_alphas, gradients in reversed(steps):
        if problem.alpha_learned:
            alpha_gradients = [-v * g for v, g in zip(adjoint, gradients, strict=True)] + alpha_gradients
        direction = [alpha * v for alpha, v in zip(step_alphas, adjoint, strict=True)]
        products = jax.jvp(gradient_at, (before,), (direction,))[1]
        adjoint = [v - product for v, product in zip(adjoint, products, strict=True)]
    return adjoint + alpha_gradients


def sample(problem: Problem, key: Any) -> Any:
    """Finn's tasks of all outer steps of a call, K support and K query points."""
    points = problem.num_points
    uniform = jax.random.uniform(key, (STEPS_PER_CALL, problem.num_tasks, 2 * points + 2, 1))
    amplitude, phase, x = 0.1 + 4.9 * uniform[:, :, :1], math.pi * uniform[:, :, 1:2], 10 * uniform[:, :, 2:] - 5
    y = amplitude * jnp.sin(x - phase)
    return x[:, :, :points], y[:, :, :points], x[:, :, points:], y[:, :, points:]


def _descend(weights: Any, alphas: Any, gradients: Any) -> Any:
    """The weights after an inner step."""
    return [w - alpha * gradient for w, alpha, gradient in zip(weights, alphas, gradients, strict=True)]


def _over_tasks(function: Any, values: Any, points: Any, problem: Problem) -> Any:
    """`function` of each task, whose `points` have a leading axis of tasks."""
    return jax.vmap(lambda *task: function(problem, values, *task))(*points)
