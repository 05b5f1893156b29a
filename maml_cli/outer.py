"""The outer loop's step: what is meta-learned moves against the mean over tasks of the per-task meta-gradients.

Shapes: gradients come as (R, B, ...), one for each run and task, and are reduced once to (R, ...).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from maml_cli.errors import DivergedError
from maml_cli.meta import Meta, map_meta, tensors
from maml_cli.meta_gradients import MetaGrad
from maml_cli.tasks import TaskBatch

MakeOptimizer = Callable[[Sequence[Tensor], float], Optimizer]

# Adam and AdamW run as one fused kernel instead of a dozen operations a tensor: the same formula.
OPTIMIZERS: dict[str, MakeOptimizer] = {
    "adam": lambda leaves, lr: torch.optim.Adam(leaves, lr=lr, fused=True),
    "adamw": lambda leaves, lr: torch.optim.AdamW(leaves, lr=lr, fused=True),
    "rmsprop": lambda leaves, lr: torch.optim.RMSprop(leaves, lr=lr),
    "sgd": lambda leaves, lr: torch.optim.SGD(leaves, lr=lr),
    "momentum": lambda leaves, lr: torch.optim.SGD(leaves, lr=lr, momentum=0.9),
}


class Learned(NamedTuple):
    """An optimiser of part of a Meta, and the learning rate that a schedule scales."""

    optimizer: Optimizer
    lr: float


@dataclass
class TrainState:
    """Everything that training changes. `loss_sum` and `left_out`, both (R,), add up the query losses, and count the
    tasks left out, since the last line of the log. The generators of tasks, and of noise where there is any, are one
    for each run."""

    meta: Meta
    optimizers: dict[str, Learned]
    generators: list[Generator]
    step: int
    loss_sum: Tensor
    left_out: Tensor
    noise_generators: list[Generator] = field(default_factory=list)


class Outcome(NamedTuple):
    """What an outer step found, for each run: mean query loss and norm of the meta-gradient, (R,) both, before
    `clip_norm`; and the meta-gradient itself, (R, ...), as the optimisers got it."""

    loss: Tensor
    grad_norm: Tensor
    gradients: Meta


def outer_step(
    state: TrainState,
    sample: Callable[[Sequence[Generator]], TaskBatch],
    meta_grad: MetaGrad,
    *,
    lr_scale: float = 1.0,
    clip_norm: float | None = None,
    clip_task_norm: float | None = None,
    weight_noise: float = 0.0,
) -> Outcome:
    """One step of the outer loop (Finn et al. 2017, Algorithm 1, line 8); mutates `state`, and only it.

    `clip_task_norm` bounds the gradient of each task before the mean, `clip_norm` that of each run after it. Raises
    DivergedError, before anything is updated, if a loss or a gradient is not finite; with `clip_task_norm`, tasks
    of which that is true are left out and counted, and it is raised when no task remains. With `weight_noise`, its
    standard deviation, the gradients are those at parameters with noise.
    """
    batch = sample(state.generators)
    start = noisy(state.meta, state.noise_generators, weight_noise) if weight_noise else state.meta
    losses, slopes = meta_grad(start, batch, state.step)
    # Mean over tasks here, outside; inside, the losses of tasks were summed.
    if clip_task_norm is None:
        gradients, mean_losses, left_out = map_meta(_mean, slopes), losses.mean(dim=1), torch.tensor(0)
    else:
        gradients, kept = mean_of_clipped(losses, slopes, clip_task_norm)
        mean_losses = losses.where(kept, 0.0).sum(dim=1) / kept.sum(dim=1)
        left_out = (~kept).sum(dim=1).cpu()
    norms = run_norms(gradients)
    loss, grad_norm = torch.stack([mean_losses, norms]).cpu().double()
    if not (loss.isfinite().all() and grad_norm.isfinite().all()):
        raise DivergedError(f"diverged at outer step {state.step + 1}: {_diagnosis(losses, slopes)}")
    if clip_norm is not None:
        scale = (clip_norm / norms).clamp(max=1)
        gradients = map_meta(lambda value: value * scale.view(-1, *[1] * (value.dim() - 1)), gradients)
    for part, slope in zip(state.meta, gradients, strict=True):
        for key, leaf in part.items():
            leaf.grad = slope.get(key)
    for learned in state.optimizers.values():
        for group in learned.optimizer.param_groups:
            group["lr"] = learned.lr * lr_scale
        learned.optimizer.step()
    state.step += 1
    state.loss_sum += loss
    state.left_out += left_out
    return Outcome(loss, grad_norm, gradients)


def noisy(meta: Meta, generators: Sequence[Generator], std: float) -> Meta:
    """`meta` with uniform noise of deviation `std` on every parameter, one generator a run; its rule stays as it is.

    What is learned so is good on average around the parameters, and adapts without running away from where it is.
    """
    width = std * math.sqrt(3)
    moved = {}
    for key, value in meta.params.items():
        noise = [torch.rand(value.shape[1:], generator=g, dtype=torch.float64) for g in generators]
        moved[key] = value.detach() + (2 * torch.stack(noise) - 1).mul_(width).to(value)
    return Meta(moved, meta.rule)


def mean_of_clipped(losses: Tensor, slopes: Meta, limit: float) -> tuple[Meta, Tensor]:
    """The mean over tasks of their gradients, each scaled to a norm of at most `limit`; and which tasks (R, B) count.

    A clipped mean is no better than its worst task: one that is not finite makes it so. Such tasks count as zero.
    """
    parts = torch.stack([torch.linalg.vector_norm(value.flatten(2), dim=2) for value in tensors(slopes)])
    norms = torch.linalg.vector_norm(parts, dim=0)
    kept = norms.isfinite() & losses.isfinite()
    if not kept.all():
        slopes = map_meta(lambda value: value.where(kept.view(*kept.shape, *[1] * (value.dim() - 2)), 0.0), slopes)
    weights = ((limit / norms).clamp(max=1).where(kept, 0.0) / norms.shape[1]).unsqueeze(1)
    return map_meta(lambda value: (weights @ value.flatten(2)).view(-1, *value.shape[2:]), slopes), kept


def run_norms(gradients: Meta) -> Tensor:
    """The norm of each run's whole meta-gradient: (R,)."""
    squares = [value.flatten(1).square().sum(dim=1) for value in tensors(gradients)]
    return torch.stack(squares).sum(dim=0).sqrt()


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}
"""The part of all outer steps that is done -> the factor on every outer learning rate."""


def _mean(value: Tensor) -> Tensor:
    return value.mean(dim=1)


def _diagnosis(losses: Tensor, slopes: Meta) -> str:
    lost = int((~losses.isfinite()).sum())
    if lost:
        return f"the query loss of {lost} of {losses.numel()} tasks is not finite"
    finite = torch.stack([value.isfinite().flatten(2).all(dim=2) for value in tensors(slopes)]).all(dim=0)
    lost = int((~finite).sum())
    return f"the gradient of {lost} of {losses.numel()} tasks is not finite" if lost else "the gradient overflows"
