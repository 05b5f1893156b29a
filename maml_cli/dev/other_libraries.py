"""MAML with plain PyTorch, torch.func, higher, TorchOpt and JAX: the learners that engines are timed against.

Each learner is minimal and idiomatic. It trains by outer steps of Adam on tasks that it samples itself, and computes
the mean meta-gradient on given tasks, so that it can be verified. Network 1-40-40-1 with ReLU, MSE, fixed alpha; x and
y are (B, K, 1).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.functional import mse_loss

from maml_cli.dev.learner import Learner, Problem, TaskPoints, network, sample


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

    return _by_autograd(problem, loss)


def torch_func(problem: Problem) -> Learner:
    """torch.func: vmap over tasks of the query loss after torch.func.grad steps."""

    def task(weights: list[Tensor], support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        for _ in range(problem.steps):
            gradients = grad(lambda w: mse_loss(network(w, support_x), support_y))(weights)
            weights = [w - problem.alpha * gradient for w, gradient in zip(weights, gradients, strict=True)]
        return mse_loss(network(weights, query_x), query_y)

    def loss(weights: list[Tensor], points: TaskPoints) -> Tensor:
        mean: Tensor = vmap(task, (None, 0, 0, 0, 0))(weights, *points).mean()
        return mean

    weights = [w.clone() for w in problem.weights]
    optimizer = torch.optim.Adam(weights, lr=1e-3)

    def step() -> None:
        for w, gradient in zip(weights, grad(loss)(weights, sample(problem)), strict=True):
            w.grad = gradient
        optimizer.step()

    return Learner(lambda points: list(grad(loss)(list(problem.weights), points)), step)


def higher_library(problem: Problem) -> Learner:
    """higher: an inner loop context for each task."""
    import higher

    module = _module(problem)
    inner, outer = (
        torch.optim.SGD(module.parameters(), lr=problem.alpha),
        torch.optim.Adam(module.parameters(), lr=1e-3),
    )

    def backward(points: TaskPoints) -> None:
        outer.zero_grad()
        for support_x, support_y, query_x, query_y in zip(*points, strict=True):
            with higher.innerloop_ctx(module, inner, copy_initial_weights=False) as (adapted, descent):
                for _ in range(problem.steps):
                    descent.step(mse_loss(adapted(support_x), support_y))
                (mse_loss(adapted(query_x), query_y) / problem.num_tasks).backward()  # type: ignore[no-untyped-call]

    return _by_backward(problem, module, outer, backward)


def torchopt_library(problem: Problem) -> Learner:
    """TorchOpt: MetaSGD on a module whose state is put back after each task."""
    import torchopt

    module = _module(problem)
    inner, outer = torchopt.MetaSGD(module, lr=problem.alpha), torch.optim.Adam(module.parameters(), lr=1e-3)

    def backward(points: TaskPoints) -> None:
        outer.zero_grad()
        start = [torchopt.extract_state_dict(stateful, by="reference") for stateful in (module, inner)]
        for support_x, support_y, query_x, query_y in zip(*points, strict=True):
            for _ in range(problem.steps):
                inner.step(mse_loss(module(support_x), support_y))
            (mse_loss(module(query_x), query_y) / problem.num_tasks).backward()  # type: ignore[no-untyped-call]
            for stateful, state in zip((module, inner), start, strict=True):
                torchopt.recover_state_dict(stateful, state)

    return _by_backward(problem, module, outer, backward)


def jax_library(problem: Problem) -> Learner:
    """JAX, which is imported only here."""
    from maml_cli.dev.jax_library import jax_learner

    return jax_learner(problem)


def _by_autograd(problem: Problem, loss: Callable[[Sequence[Tensor], TaskPoints], Tensor]) -> Learner:
    weights = [w.clone().requires_grad_() for w in problem.weights]
    optimizer = torch.optim.Adam(weights, lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss(weights, sample(problem)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def gradient(points: TaskPoints) -> list[Tensor]:
        leaves = [w.clone().requires_grad_() for w in problem.weights]
        return list(torch.autograd.grad(loss(leaves, points), leaves))

    return Learner(gradient, step)


def _by_backward(
    problem: Problem, module: nn.Module, optimizer: torch.optim.Optimizer, backward: Callable[[TaskPoints], None]
) -> Learner:
    def step() -> None:
        backward(sample(problem))
        optimizer.step()

    def gradient(points: TaskPoints) -> list[Tensor]:
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


LIBRARIES: dict[str, Callable[[Problem], Learner]] = {
    "loop over tasks, create_graph": loop,
    "torch.func, vmap(grad)": torch_func,
    "higher": higher_library,
    "TorchOpt": torchopt_library,
    "JAX, jit(vmap(grad))": jax_library,
}
PACKAGES = {"higher": "higher", "TorchOpt": "torchopt", "JAX, jit(vmap(grad))": "jax"}
"""The package that a learner needs, where it needs one."""
