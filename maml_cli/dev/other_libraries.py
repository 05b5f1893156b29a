"""MAML with other libraries, the learners that engines are timed against: their table, and those that loop over tasks.

Each learner is minimal and idiomatic. It trains by outer steps of Adam on tasks that it samples itself, and computes
the mean meta-gradient on given tasks, so that it can be verified. Network with ReLU, MSE; x and y are (B, K, 1).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from maml_cli.dev import batched_libraries
from maml_cli.dev.learner import Learner, Problem, TaskPoints, adam, network, sample


class Library(NamedTuple):
    """A way to write MAML.

    make: its learner.
    package: what must be installed for it besides PyTorch, if anything.
    learns_alpha: whether its learner also takes problems with learned alphas.
    """

    make: Callable[[Problem], Learner]
    package: str | None = None
    learns_alpha: bool = False


def loop(problem: Problem) -> Learner:
    """A loop over tasks, torch.autograd.grad with create_graph in each."""

    def loss(weights: Sequence[Tensor], points: TaskPoints) -> Tensor:
        losses = []
        for support_x, support_y, query_x, query_y in zip(*points, strict=True):
            adapted = weights
            for _ in range(problem.steps):
                inner = mse_loss(network(adapted, support_x), support_y)
                gradients = torch.autograd.grad(inner, adapted, create_graph=True)
                adapted = [w - problem.alpha * gradient for w, gradient in zip(adapted, gradients, strict=True)]
            losses.append(mse_loss(network(adapted, query_x), query_y))
        return torch.stack(losses).mean()

    return batched_libraries.by_autograd(problem, loss)


def higher_library(problem: Problem) -> Learner:
    """higher: an inner loop context for each task."""
    import higher

    module = _module(problem)
    inner = torch.optim.SGD(module.parameters(), lr=problem.alpha)

    def backward(points: TaskPoints) -> None:
        for support_x, support_y, query_x, query_y in zip(*points, strict=True):
            with higher.innerloop_ctx(module, inner, copy_initial_weights=False) as (adapted, descent):
                for _ in range(problem.steps):
                    descent.step(mse_loss(adapted(support_x), support_y))
                (mse_loss(adapted(query_x), query_y) / problem.num_tasks).backward()  # type: ignore[no-untyped-call]

    return _by_backward(problem, module, backward)


def torchopt_meta_sgd(problem: Problem) -> Learner:
    """TorchOpt: MetaSGD on a module whose state is put back after each task."""
    import torchopt

    module = _module(problem)
    inner = torchopt.MetaSGD(module, lr=problem.alpha)

    def backward(points: TaskPoints) -> None:
        start = [torchopt.extract_state_dict(stateful, by="reference") for stateful in (module, inner)]
        for support_x, support_y, query_x, query_y in zip(*points, strict=True):
            for _ in range(problem.steps):
                inner.step(mse_loss(module(support_x), support_y))
            (mse_loss(module(query_x), query_y) / problem.num_tasks).backward()  # type: ignore[no-untyped-call]
            for stateful, state in zip((module, inner), start, strict=True):
                torchopt.recover_state_dict(stateful, state)

    return _by_backward(problem, module, backward)


def jax_gradients(problem: Problem) -> Learner:
    """JAX, which is imported only here: gradients of gradients."""
    from maml_cli.dev.jax_library import jax_learner

    return jax_learner(problem)


def jax_products(problem: Problem) -> Learner:
    """JAX, Hessian-vector products."""
    from maml_cli.dev.jax_library import jax_learner

    return jax_learner(problem, hessian_vector_products=True)


def _by_backward(problem: Problem, module: nn.Module, backward: Callable[[TaskPoints], None]) -> Learner:
    """A learner that adds its gradient to those of `module`."""
    outer = adam(list(module.parameters()), problem)

    def step() -> None:
        outer.zero_grad()
        backward(sample(problem))
        outer.step()

    def gradient(points: TaskPoints) -> list[Tensor]:
        outer.zero_grad()
        backward(points)
        return [p.grad.clone() for p in module.parameters() if p.grad is not None]

    return Learner(gradient, step)


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


LOOP, FUNC, COMPILED_FUNC = "loop over tasks, create_graph", "torch.func, vmap(grad)", "torch.func, compiled"
JAX = ("JAX, gradients of gradients", "JAX, Hessian-vector products")
LIBRARIES: dict[str, Library] = {
    LOOP: Library(loop),
    "all tasks at once, create_graph": Library(batched_libraries.all_at_once),
    FUNC: Library(batched_libraries.torch_func, learns_alpha=True),
    COMPILED_FUNC: Library(batched_libraries.compiled_torch_func, learns_alpha=True),
    "higher": Library(higher_library, "higher"),
    "TorchOpt, MetaSGD": Library(torchopt_meta_sgd, "torchopt"),
    "TorchOpt, functional, vmap": Library(batched_libraries.torchopt_functional, "torchopt"),
    JAX[0]: Library(jax_gradients, "jax", learns_alpha=True),
    JAX[1]: Library(jax_products, "jax", learns_alpha=True),
}
