"""MAML with PyTorch and TorchOpt on all tasks of an outer step at once, as their authors would write it for speed."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import mse_loss, relu

from maml_cli.dev.learner import Learner, Problem, TaskPoints, adam, network, sample


def all_at_once(problem: Problem) -> Learner:
    """Weights with an axis of tasks, torch.autograd.grad with create_graph once for all of them."""

    def outputs(weights: Sequence[Tensor], x: Tensor) -> Tensor:
        *hidden, (weight, bias) = zip(weights[::2], weights[1::2], strict=True)
        for w, b in hidden:
            x = relu(x @ w.mT + b.unsqueeze(-2))
        return x @ weight.mT + bias.unsqueeze(-2)

    def loss(weights: Sequence[Tensor], points: TaskPoints) -> Tensor:
        support_x, support_y, query_x, query_y = points
        adapted = [w.expand(problem.num_tasks, *w.shape) for w in weights]
        for _ in range(problem.steps):
            # The sum over tasks has the gradient of each task's own mean.
            inner = (outputs(adapted, support_x) - support_y).square().mean((1, 2)).sum()
            gradients = torch.autograd.grad(inner, adapted, create_graph=True)
            adapted = [w - problem.alpha * gradient for w, gradient in zip(adapted, gradients, strict=True)]
        return mse_loss(outputs(adapted, query_x), query_y)

    return by_autograd(problem, loss)


def torch_func(problem: Problem) -> Learner:
    """torch.func: vmap over tasks of the query loss after torch.func.grad steps."""
    return _by_torch_func(problem, lambda function: function)


def compiled_torch_func(problem: Problem) -> Learner:
    """torch.func, compiled by torch.compile as one graph."""
    return _by_torch_func(problem, lambda function: torch.compile(function, fullgraph=True, dynamic=False))


def torchopt_functional(problem: Problem) -> Learner:
    """TorchOpt: its functional optimisers, under torch.func.vmap inside."""
    import torchopt

    def task(weights: tuple[Tensor, ...], *points: Tensor) -> Tensor:
        support_x, support_y, query_x, query_y = points
        inner = torchopt.sgd(lr=problem.alpha)
        state = inner.init(weights)
        for _ in range(problem.steps):
            gradients = grad(lambda w: mse_loss(network(w, support_x), support_y))(weights)
            updates, state = inner.update(gradients, state, inplace=False)
            weights = torchopt.apply_updates(weights, updates, inplace=False)
        return mse_loss(network(weights, query_x), query_y)

    meta_gradient = grad(_mean_over_tasks(task))
    weights = tuple(w.clone() for w in problem.weights)
    outer = torchopt.adam(lr=problem.lr)
    state = [outer.init(weights)]

    def step() -> None:
        gradients = meta_gradient(weights, sample(problem))
        with torch.no_grad():
            updates, state[0] = outer.update(gradients, state[0], inplace=True)
            torchopt.apply_updates(weights, updates, inplace=True)

    return Learner(lambda points: list(meta_gradient(tuple(problem.weights), points)), step)


def by_autograd(problem: Problem, loss: Callable[[Sequence[Tensor], TaskPoints], Tensor]) -> Learner:
    """A learner whose `loss` of weights, without learned alphas, is differentiated by backward."""
    weights = [w.clone().requires_grad_() for w in problem.weights]
    optimizer = adam(weights, problem)

    def step() -> None:
        optimizer.zero_grad()
        loss(weights, sample(problem)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def gradient(points: TaskPoints) -> list[Tensor]:
        leaves = [w.clone().requires_grad_() for w in problem.weights]
        return list(torch.autograd.grad(loss(leaves, points), leaves))

    return Learner(gradient, step)


def _by_torch_func(problem: Problem, compile_function: Callable[[Any], Any]) -> Learner:
    def task(values: Sequence[Tensor], *points: Tensor) -> Tensor:
        support_x, support_y, query_x, query_y = points
        weights, alphas = problem.split(values)
        for step_alphas in alphas:
            gradients = grad(lambda w: mse_loss(network(w, support_x), support_y))(weights)
            weights = [w - alpha * g for w, alpha, g in zip(weights, step_alphas, gradients, strict=True)]
        return mse_loss(network(weights, query_x), query_y)

    meta_gradient = compile_function(grad(_mean_over_tasks(task)))
    values = [value.clone() for value in problem.values]
    optimizer = adam(values, problem)

    def step() -> None:
        for value, gradient in zip(values, meta_gradient(values, sample(problem)), strict=True):
            value.grad = gradient
        optimizer.step()

    return Learner(lambda points: list(meta_gradient([*problem.values], points)), step)


def _mean_over_tasks(task: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The mean of the query losses of `task`(values, support x, support y, query x, query y) over the tasks."""

    def loss(values: Any, points: TaskPoints) -> Tensor:
        mean: Tensor = vmap(task, (None, 0, 0, 0, 0))(values, *points).mean()
        return mean

    return loss
