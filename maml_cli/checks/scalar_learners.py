"""Learners with one-by-one parameters, (1, B, 1, 1) in float64, for worked examples."""

from collections.abc import Iterator

import torch
from torch import Tensor

from maml_cli.core import (
    InnerLoop,
    MetaParams,
    Params,
    Points,
    TaskBatch,
    TaskLoss,
    inner_loop,
    last_step_weights,
    query_gradient,
    update_rules,
)
from maml_cli.engines import TrainState, make_outer_optimizer, take_outer_step


def unroll(
    loss: TaskLoss, params: Params, alpha: Tensor, support: Points, *, steps: int, first_order: bool = False
) -> Iterator[Params]:
    """The parameters after 0, 1, ..., `steps` inner steps of gradient descent with one alpha (1, B, 1, 1, 1)."""
    update = update_rules.scale_by_alpha(dict.fromkeys(params, "alpha"))
    return inner_loop.unroll(
        loss, MetaParams(params, {"alpha": alpha}), update, support, steps=steps, first_order=first_order
    )


def outer_step(
    loss: TaskLoss, start: dict[str, float], batch: TaskBatch, *, alpha: float, lr: float, order: str
) -> tuple[Tensor, MetaParams, Params]:
    """Query losses, per-task gradients of parameters and alpha, and the parameters after an outer SGD step."""
    loop, meta_params = make_inner_loop(loss, start, alpha=alpha)
    adapt = loop.with_annealed_order(1, first_order_until={"second": 0, "first": 1}[order])
    meta_gradient = query_gradient(adapt, loss, learned=["alpha"], weights=last_step_weights(1))
    losses, gradients = meta_gradient(meta_params, batch, 0)
    optimizers = {"params": make_outer_optimizer("sgd", list(meta_params.params.values()), lr)}
    state = TrainState(meta_params, optimizers, [], 0, torch.zeros(1), torch.zeros(1), torch.zeros(1))
    take_outer_step(state, batch, meta_gradient)
    return losses, gradients, state.meta_params.params


def make_inner_loop(
    loss: TaskLoss, start: dict[str, float], *, alpha: float, proximal: float = 0.0
) -> tuple[InnerLoop, MetaParams]:
    """Gradient descent with one alpha for all parameters, and the initial meta-parameters."""
    groups = dict.fromkeys(start, "alpha")
    params = {key: scalar(value)[0] for key, value in start.items()}
    alphas = update_rules.init_alphas(params, groups, update_rules.AlphaStart(alpha, alpha))
    loop = InnerLoop(loss, update_rules.scale_by_alpha(groups), list(start), proximal=proximal)
    return loop, MetaParams(params, alphas)


def scalar(value: float) -> Tensor:
    """One number of one task of one run: (1, 1, 1, 1)."""
    return torch.full((1, 1, 1, 1), value, dtype=torch.float64)


def points_by_task(rows: list[list[float]]) -> Tensor:
    """One row of numbers for each task: (1, B, K, 1)."""
    return torch.tensor(rows, dtype=torch.float64).reshape(1, len(rows), -1, 1)


def derivative(output: Tensor, variable: Tensor) -> float:
    """The derivative of the sum of `output`, zero where it does not depend on `variable`."""
    (gradient,) = torch.autograd.grad(output.sum(), variable, retain_graph=True, allow_unused=True)
    return 0.0 if gradient is None else gradient.item()
