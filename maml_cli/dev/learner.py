"""Learners of the benchmark as data: their problem, their operations, and network and tasks in plain PyTorch."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, relu

TaskPoints = tuple[Tensor, Tensor, Tensor, Tensor]
"""Support x and y, query x and y."""


class Problem(NamedTuple):
    """A learner's start and the size of its outer steps.

    weights: weight (out, in) and bias (out,) of each layer in turn.
    alpha: inner step size, the first if they are learned.
    alpha_learned: whether the outer loop learns an alpha of each parameter and inner step.
    steps: inner steps.
    lr: outer learning rate.
    num_tasks: tasks in an outer step.
    num_points: support points of a task, and as many query points.
    """

    weights: Sequence[Tensor]
    alpha: float
    alpha_learned: bool
    steps: int
    lr: float
    num_tasks: int
    num_points: int

    @property
    def values(self) -> tuple[Tensor, ...]:
        """The start of all that the outer loop learns: the weights, then the alphas of each inner step, if learned."""
        alphas = [torch.full_like(weight, self.alpha) for weight in self.weights]
        return (*self.weights, *alphas * self.steps * self.alpha_learned)

    def split(self, values: Sequence[Any]) -> tuple[list[Any], list[Sequence[Any]]]:
        """The weights in `values`, which are as those of the property, and the alphas of each inner step."""
        count = len(self.weights)
        fixed = [self.alpha] * count
        alphas = [
            values[count * (1 + step) : count * (2 + step)] if self.alpha_learned else fixed
            for step in range(self.steps)
        ]
        return list(values[:count]), alphas


class Learner(NamedTuple):
    """One implementation of MAML.

    gradient: the mean meta-gradient on given tasks at the start, one tensor for each of `Problem.values`.
    step: takes `steps_per_call` outer steps.
    steps_per_call: one, except where many are one compiled call.
    """

    gradient: Callable[[TaskPoints], list[Tensor]]
    step: Callable[[], object]
    steps_per_call: int = 1


def sample(problem: Problem) -> TaskPoints:
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


def adam(values: Sequence[Tensor], problem: Problem) -> torch.optim.Optimizer:
    """The outer optimiser of all learners in PyTorch: one fused kernel for all tensors."""
    return torch.optim.Adam(values, lr=problem.lr, fused=True)
