"""The same learner as others write it: what the benchmark stands beside the engines.

Each peer is minimal and idiomatic, trains by outer steps of Adam on tasks that it samples itself, and shows its mean
meta-gradient on given tasks, so that it can be seen to compute the same. Network 1-40-40-1 with ReLU, MSE, fixed alpha;
x and y are (B, K, 1).
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.functional import linear, mse_loss, relu

Points = tuple[Tensor, Tensor, Tensor, Tensor]
"""Support x and y, query x and y."""


class Problem(NamedTuple):
    """What is trained: weights (out, in) and biases (out,) in turn, alpha, and how much of what in each outer step."""

    weights: Sequence[Tensor]
    alpha: float
    steps: int
    num_tasks: int
    num_points: int


class Peer(NamedTuple):
    """`gradient`: the mean meta-gradient on given tasks, one tensor for each of the weights; `step`: an outer step."""

    gradient: Callable[[Points], list[Tensor]]
    step: Callable[[], object]


def sample(problem: Problem) -> Points:
    """Finn's tasks, K support and K query points."""
    size, points = problem.num_tasks, problem.num_points
    amplitude = torch.empty(size, 1, 1).uniform_(0.1, 5.0)
    phase = torch.empty(size, 1, 1).uniform_(0.0, math.pi)
    x = torch.empty(size, 2 * points, 1).uniform_(-5.0, 5.0)
    y = amplitude * torch.sin(x - phase)
    return x[:, :points], y[:, :points], x[:, points:], y[:, points:]


def network(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """The output at x."""
    *hidden, last = zip(weights[::2], weights[1::2], strict=True)
    for weight, bias in hidden:
        x = relu(linear(x, weight, bias))
    return linear(x, *last)


def loop(problem: Problem) -> Peer:
    """A loop over tasks, torch.autograd.grad with create_graph in each."""

    def loss(weights: Sequence[Tensor], points: Points) -> Tensor:
        losses = []
        for support_x, support_y, query_x, query_y in zip(*points, strict=True):
            adapted = weights
            for _ in range(problem.steps):
                inner = mse_loss(network(adapted, support_x), support_y)
                slopes = torch.autograd.grad(inner, adapted, create_graph=True)
                adapted = [w - problem.alpha * slope for w, slope in zip(adapted, slopes, strict=True)]
            losses.append(mse_loss(network(adapted, query_x), query_y))
        return torch.stack(losses).mean()

    return _by_autograd(problem, loss)


def torch_func(problem: Problem) -> Peer:
    """torch.func: vmap over tasks of the query loss after torch.func.grad steps."""

    def task(weights: list[Tensor], support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        for _ in range(problem.steps):
            slopes = grad(lambda w: mse_loss(network(w, support_x), support_y))(weights)
            weights = [w - problem.alpha * slope for w, slope in zip(weights, slopes, strict=True)]
        return mse_loss(network(weights, query_x), query_y)

    def loss(weights: list[Tensor], points: Points) -> Tensor:
        found: Tensor = vmap(task, (None, 0, 0, 0, 0))(weights, *points).mean()
        return found

    weights = [w.clone() for w in problem.weights]
    optimizer = torch.optim.Adam(weights, lr=1e-3)

    def step() -> None:
        for w, slope in zip(weights, grad(loss)(weights, sample(problem)), strict=True):
            w.grad = slope
        optimizer.step()

    return Peer(lambda points: list(grad(loss)(list(problem.weights), points)), step)


def higher_library(problem: Problem) -> Peer:
    """higher: an inner loop context for each task."""
    import higher

    module = _module(problem)
    inner, outer = (
        torch.optim.SGD(module.parameters(), lr=problem.alpha),
        torch.optim.Adam(module.parameters(), lr=1e-3),
    )

    def backward(points: Points) -> None:
        outer.zero_grad()
        for support_x, support_y, query_x, query_y in zip(*points, strict=True):
            with higher.innerloop_ctx(module, inner, copy_initial_weights=False) as (adapted, descent):
                for _ in range(problem.steps):
                    descent.step(mse_loss(adapted(support_x), support_y))
                (mse_loss(adapted(query_x), query_y) / problem.num_tasks).backward()  # type: ignore[no-untyped-call]

    return _by_backward(problem, module, outer, backward)


def torchopt_library(problem: Problem) -> Peer:
    """TorchOpt: MetaSGD on a module whose state is put back after each task."""
    import torchopt

    module = _module(problem)
    inner, outer = torchopt.MetaSGD(module, lr=problem.alpha), torch.optim.Adam(module.parameters(), lr=1e-3)

    def backward(points: Points) -> None:
        outer.zero_grad()
        start = [torchopt.extract_state_dict(part, by="reference") for part in (module, inner)]
        for support_x, support_y, query_x, query_y in zip(*points, strict=True):
            for _ in range(problem.steps):
                inner.step(mse_loss(module(support_x), support_y))
            (mse_loss(module(query_x), query_y) / problem.num_tasks).backward()  # type: ignore[no-untyped-call]
            for part, state in zip((module, inner), start, strict=True):
                torchopt.recover_state_dict(part, state)

    return _by_backward(problem, module, outer, backward)


def jax_library(problem: Problem) -> Peer:
    """JAX: jit of vmap of grad with optax, sampling inside, a scan of 100 outer steps in one call."""
    import jax
    import jax.numpy as jnp
    import optax

    def network(params: Any, x: Any) -> Any:
        *hidden, (weight, bias) = params
        for w, b in hidden:
            x = jax.nn.relu(x @ w + b)
        return x @ weight + bias

    def error(params: Any, x: Any, y: Any) -> Any:
        return ((network(params, x) - y) ** 2).mean()

    def task(params: Any, support_x: Any, support_y: Any, query_x: Any, query_y: Any) -> Any:
        for _ in range(problem.steps):
            slopes = jax.grad(error)(params, support_x, support_y)
            params = jax.tree.map(lambda w, slope: w - problem.alpha * slope, params, slopes)
        return error(params, query_x, query_y)

    def loss(params: Any, points: Any) -> Any:
        return jax.vmap(task, (None, 0, 0, 0, 0))(params, *points).mean()

    def tasks(key: Any) -> Any:
        size, points = problem.num_tasks, problem.num_points
        keys = jax.random.split(key, 3)
        amplitude = jax.random.uniform(keys[0], (size, 1, 1), minval=0.1, maxval=5.0)
        phase = jax.random.uniform(keys[1], (size, 1, 1), maxval=math.pi)
        x = jax.random.uniform(keys[2], (size, 2 * points, 1), minval=-5.0, maxval=5.0)
        y = amplitude * jnp.sin(x - phase)
        return x[:, :points], y[:, :points], x[:, points:], y[:, points:]

    pairs = zip(problem.weights[::2], problem.weights[1::2], strict=True)
    params = [(jnp.asarray(w.T.numpy()), jnp.asarray(b.numpy())) for w, b in pairs]
    optimizer = optax.adam(1e-3)

    def outer_step(carry: Any, _: Any) -> Any:
        params, state, key = carry
        key, used = jax.random.split(key)
        updates, state = optimizer.update(jax.grad(loss)(params, tasks(used)), state)
        return (optax.apply_updates(params, updates), state, key), None

    many = jax.jit(lambda carry: jax.lax.scan(outer_step, carry, None, length=AT_ONCE)[0])
    carry = [(params, optimizer.init(params), jax.random.PRNGKey(0))]

    def step() -> None:
        carry[0] = jax.block_until_ready(many(carry[0]))

    def gradient(points: Points) -> list[Tensor]:
        found = jax.grad(loss)(params, tuple(jnp.asarray(part.numpy()) for part in points))
        return [torch.tensor(part.tolist()).T for pair in found for part in pair]

    return Peer(gradient, step)


AT_ONCE = 100
PEERS: dict[str, Callable[[Problem], Peer]] = {
    "loop over tasks, create_graph": loop,
    "torch.func, vmap(grad)": torch_func,
    "higher": higher_library,
    "TorchOpt": torchopt_library,
    "JAX, jit(vmap(grad))": jax_library,
}
STEPS_IN_CALL = {"JAX, jit(vmap(grad))": AT_ONCE}
NEEDS = {"higher": "higher", "TorchOpt": "torchopt", "JAX, jit(vmap(grad))": "jax"}
"""The package that a peer is of."""


def _by_autograd(problem: Problem, loss: Callable[[Sequence[Tensor], Points], Tensor]) -> Peer:
    weights = [w.clone().requires_grad_() for w in problem.weights]
    optimizer = torch.optim.Adam(weights, lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss(weights, sample(problem)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def gradient(points: Points) -> list[Tensor]:
        leaves = [w.clone().requires_grad_() for w in problem.weights]
        return list(torch.autograd.grad(loss(leaves, points), leaves))

    return Peer(gradient, step)


def _by_backward(
    problem: Problem, module: nn.Module, optimizer: torch.optim.Optimizer, backward: Callable[[Points], None]
) -> Peer:
    def step() -> None:
        backward(sample(problem))
        optimizer.step()

    def gradient(points: Points) -> list[Tensor]:
        backward(points)
        return [p.grad.clone() for p in module.parameters() if p.grad is not None]

    return Peer(gradient, step)


def _module(problem: Problem) -> nn.Module:
    sizes = [problem.weights[0].shape[1], *(len(bias) for bias in problem.weights[1::2])]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    module = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), problem.weights, strict=True):
            parameter.copy_(value)
    return module
