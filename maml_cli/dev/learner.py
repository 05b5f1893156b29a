"""Learners of the benchmark as data: their problem, their operations, and network and tasks in plain PyTorch."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, relu

TaskPoints = tuple[Tensor, Tensor, Tensor, Tensor]
"""Support x and y, query x and y."""


class Problem(NamedTuple):
    """A learner's start and the size of its outer steps.

    weights: weight (out, in) and bias (out,) of each layer in turn.
    alpha: inner step size.
    steps: inner steps.
    num_tasks: tasks in an outer step.
    num_points: support points of a task, and as many query points.
    """

    weights: Sequence[Tensor]
    alpha: float
    steps: int
    num_tasks: int
    num_points: int


class Learner(NamedTuple):
    """One implementation of MAML.

    gradient: the mean meta-gradient on given tasks at the initial weights, one tensor for each of them.
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
