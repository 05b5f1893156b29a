"""The learner of the benchmark in JAX: jit of vmap of grad, optax outside, tasks sampled inside the compiled code."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
import torch
from torch import Tensor

from maml_cli.dev.learner import Learner, Problem, TaskPoints

STEPS_PER_CALL = 100


def jax_learner(problem: Problem) -> Learner:
    """A learner whose `step` is one compiled scan of 100 outer steps."""
    pairs = zip(problem.weights[::2], problem.weights[1::2], strict=True)
    params = [(jnp.asarray(w.T.numpy()), jnp.asarray(b.numpy())) for w, b in pairs]
    optimizer = optax.adam(1e-3)

    def outer_step(carry: Any, _: Any) -> Any:
        params, state, key = carry
        key, used = jax.random.split(key)
        gradients = jax.grad(query_loss)(params, sample(problem, used), problem)
        updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(params, updates), state, key), None

    scan = jax.jit(lambda carry: jax.lax.scan(outer_step, carry, None, length=STEPS_PER_CALL)[0])
    carry = [(params, optimizer.init(params), jax.random.PRNGKey(0))]

    def step() -> None:
        carry[0] = jax.block_until_ready(scan(carry[0]))

    def gradient(points: TaskPoints) -> list[Tensor]:
        arrays = tuple(jnp.asarray(values.numpy()) for values in points)
        layers = jax.grad(query_loss)(params, arrays, problem)
        return [torch.tensor(value.tolist()).T for layer in layers for value in layer]

    return Learner(gradient, step, STEPS_PER_CALL)


def network(params: Any, x: Any) -> Any:
    """The output of the network at x."""
    *hidden, (weight, bias) = params
    for w, b in hidden:
        x = jax.nn.relu(x @ w + b)
    return x @ weight + bias


def mean_squared_error(params: Any, x: Any, y: Any) -> Any:
    """The loss of both loops."""
    return ((network(params, x) - y) ** 2).mean()


def query_loss(params: Any, points: Any, problem: Problem) -> Any:
    """Mean over tasks of the query loss after the inner steps."""

    def task_loss(params: Any, support_x: Any, support_y: Any, query_x: Any, query_y: Any) -> Any:
        for _ in range(problem.steps):
            gradients = jax.grad(mean_squared_error)(params, support_x, support_y)
            params = jax.tree.map(lambda w, gradient: w - problem.alpha * gradient, params, gradients)
        return mean_squared_error(params, query_x, query_y)

    return jax.vmap(task_loss, (None, 0, 0, 0, 0))(params, *points).mean()


def sample(problem: Problem, key: Any) -> Any:
    """Finn's tasks, K support and K query points."""
    size, points = problem.num_tasks, problem.num_points
    keys = jax.random.split(key, 3)
    amplitude = jax.random.uniform(keys[0], (size, 1, 1), minval=0.1, maxval=5.0)
    phase = jax.random.uniform(keys[1], (size, 1, 1), maxval=math.pi)
    x = jax.random.uniform(keys[2], (size, 2 * points, 1), minval=-5.0, maxval=5.0)
    y = amplitude * jnp.sin(x - phase)
    return x[:, :points], y[:, :points], x[:, points:], y[:, points:]
