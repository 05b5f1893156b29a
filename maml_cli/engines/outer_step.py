"""The outer loop's step: what is meta-learned moves against the mean over tasks of the per-task meta-gradients.

Shapes: gradients come as (R, B, ...), one for each run and task, and are reduced once to (R, ...).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from maml_cli.core import MetaGradient, MetaParams, TaskBatch, map_tensors, tensors
from maml_cli.engines.optimizers import OuterOptimizer
from maml_cli.errors import DivergedError

Engine = Callable[["TrainState", int], "StepResult"]
"""(state, count) -> what the last of `count` outer steps found; mutates the state, and only it."""


@dataclass
class TrainState:
    """Everything that training changes. `loss_sum` and `left_out`, both (R,), add up the query losses, and count the
    tasks left out, since the last line of the log. The generators of tasks, and of noise where there is any, are one
    for each run. `diverged`, (R,), is the outer step at which a run stopped for a loss or a gradient that was not
    finite, and 0 where it goes on."""

    meta_params: MetaParams
    optimizers: dict[str, OuterOptimizer]
    generators: list[Generator]
    step: int
    loss_sum: Tensor
    skipped_tasks: Tensor
    diverged: Tensor
    noise_generators: list[Generator] = field(default_factory=list)


class StepResult(NamedTuple):
    """What an outer step found, for each run: mean query loss and norm of the meta-gradient, (R,) both, before
    `clip_norm`; and the meta-gradient itself, (R, ...), as the optimisers got it."""

    loss: Tensor
    grad_norm: Tensor
    gradients: MetaParams


class BatchGradient(NamedTuple):
    """Over the tasks of each run: loss, its gradient with the norm of that, and how many tasks were left out, if any
    may be."""

    loss: Tensor
    norm: Tensor
    gradients: MetaParams
    skipped_tasks: Tensor | None


AverageGradient = Callable[[MetaGradient, MetaParams, TaskBatch, int, float | None], BatchGradient]
"""(per-task meta-gradient, meta, batch, outer step, clip_task_norm) -> its mean over tasks."""


def average_gradient(
    meta_grad: MetaGradient, meta: MetaParams, batch: TaskBatch, step: int, clip_task_norm: float | None
) -> BatchGradient:
    """The mean over tasks, outside; inside, the losses of tasks were summed."""
    losses, slopes = meta_grad(meta, batch, step)
    if clip_task_norm is None:
        gradients = _weighted(slopes, torch.full_like(losses, 1 / losses.shape[1]))
        return BatchGradient(losses.mean(dim=1), run_norms(gradients), gradients, None)
    gradients, kept = clip_and_average(losses, slopes, clip_task_norm)
    loss = losses.where(kept, 0.0).sum(dim=1) / kept.sum(dim=1)
    return BatchGradient(loss, run_norms(gradients), gradients, (~kept).sum(dim=1))


def already_averaged(averaged: MetaGradient) -> AverageGradient:
    """The same by a function that has the mean without the gradients of each task, (R,) and (R, ...)."""

    def mean(
        meta_grad: MetaGradient, meta: MetaParams, batch: TaskBatch, step: int, clip_task_norm: float | None
    ) -> BatchGradient:
        loss, gradients = averaged(meta, batch, step)
        return BatchGradient(loss, run_norms(gradients), gradients, None)

    return mean


def take_outer_step(
    state: TrainState,
    batch: TaskBatch,
    meta_grad: MetaGradient,
    *,
    lr_scale: float = 1.0,
    clip_norm: float | None = None,
    clip_task_norm: float | None = None,
    weight_noise: float = 0.0,
    mean: AverageGradient = average_gradient,
) -> StepResult:
    """One step of the outer loop (Finn et al. 2017, Algorithm 1, line 8); mutates `state`, and only it.

    `clip_task_norm` bounds the gradient of each task before the mean, `clip_norm` that of each run after it. A run of
    which a loss or a gradient is not finite stops before it is updated with it, and the others go on; where no run is
    left, DivergedError is raised. With `clip_task_norm`, tasks that are not finite are left out and counted, and only
    a run of which no task remains stops. With `weight_noise`, its standard deviation, the gradients are those at
    parameters with noise.
    """
    start = state.meta_params
    if weight_noise:
        start = perturb(start, sample_weight_noise(start, state.noise_generators, weight_noise)[0])
    found = mean(meta_grad, start, batch, state.step, clip_task_norm)
    loss, grad_norm = torch.stack([found.loss, found.norm]).to("cpu", torch.float64)
    if not all(map(math.isfinite, (loss + grad_norm).tolist())):
        lost = (state.diverged == 0) & ~(loss + grad_norm).isfinite()
        if (lost | (state.diverged > 0)).all():
            raise divergence_error(state.step + 1, *meta_grad(start, batch, state.step))
        state.diverged = torch.where(lost, state.step + 1, state.diverged)
    gradients = clip_by_norm(found.gradients, found.norm, clip_norm)
    stopped = _frozen_values(state)
    for part, slope in zip(state.meta_params, gradients, strict=True):
        for key, leaf in part.items():
            leaf.grad = slope.get(key)
    set_learning_rates(state, lr_scale)
    for learned in state.optimizers.values():
        learned.step()
    for leaf, where, value in stopped:
        leaf[where] = value
    state.step += 1
    state.loss_sum += loss
    if found.skipped_tasks is not None:
        state.skipped_tasks += found.skipped_tasks.cpu()
    return StepResult(loss, grad_norm, gradients)


def set_learning_rates(state: TrainState, scale: float) -> None:
    """Set every outer learning rate to what it is at that point of its schedule."""
    for learned in state.optimizers.values():
        for group in learned.optimizer.param_groups:
            group["lr"] = learned.base_lr * scale


def clip_by_norm(gradients: MetaParams, norm: Tensor, limit: float | None) -> MetaParams:
    """The gradients of each run, (R, ...), scaled to a norm of at most `limit` where theirs is `norm` (R,)."""
    if limit is None:
        return gradients
    scale = (limit / norm).clamp(max=1)
    return map_tensors(lambda value: value * scale.view(-1, *[1] * (value.dim() - 1)), gradients)


def finish_block(
    state: TrainState, done: Tensor, count: int, meta_grad: MetaGradient, batches: TaskBatch, noise: Tensor | None
) -> None:
    """Count `count` steps that were taken in one, of which each run did `done`, (R,), until one was not finite.

    `batches` and `noise` are those of all steps. Raises DivergedError where no run is left, as `take_outer_step` does.
    """
    going = state.diverged == 0
    lost = going & (done < count)
    if lost.any() and (lost | ~going).all():
        place = int(done[lost].max())
        start = state.meta_params if noise is None else perturb(state.meta_params, noise[place])
        raise divergence_error(state.step + place + 1, *meta_grad(start, batches.step(place), state.step + place))
    state.diverged = torch.where(lost, state.step + done + 1, state.diverged)
    state.step += count


def divergence_error(step: int, losses: Tensor, slopes: MetaParams) -> DivergedError:
    """The error that outer step `step` is, where these are the losses and gradients of its tasks."""
    cause: Literal["query_loss", "gradient"] = "gradient" if losses.isfinite().all() else "query_loss"
    return DivergedError(f"diverged at outer step {step}: {_diagnosis(losses, slopes)}", outer_step=step, cause=cause)


def _frozen_values(state: TrainState) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What the runs that diverged hold: in which tensor, at which runs, and the values there."""
    if len(state.diverged) == 1 or not state.diverged.any():
        return []
    where = state.diverged > 0
    return [(leaf, where.to(leaf.device), leaf[where.to(leaf.device)].clone()) for leaf in tensors(state.meta_params)]


def sample_weight_noise(meta: MetaParams, generators: Sequence[Generator], std: float, *, num_steps: int = 1) -> Tensor:
    """Uniform noise of deviation `std` for every parameter: (steps, R, P), one generator a run, the same however steps
    are divided."""
    width, size = std * math.sqrt(3), sum(value[0].numel() for value in meta.params.values())
    drawn = [torch.rand(num_steps, size, generator=stream, dtype=torch.float64) for stream in generators]
    like = next(iter(meta.params.values()))
    return (2 * torch.stack(drawn, dim=1) - 1).mul_(width).to(like)


def perturb(meta: MetaParams, noise: Tensor) -> MetaParams:
    """`meta` with `noise` (R, P) on its parameters; its rule stays as it is.

    What is learned so is good on average around the parameters, and adapts without running away from where it is.
    """
    parts = torch.split(noise, [value[0].numel() for value in meta.params.values()], dim=1)
    moved = {
        key: value.detach() + part.view_as(value) for (key, value), part in zip(meta.params.items(), parts, strict=True)
    }
    return MetaParams(moved, meta.rule_params)


def clip_and_average(losses: Tensor, slopes: MetaParams, limit: float) -> tuple[MetaParams, Tensor]:
    """The mean over tasks of their gradients, each scaled to a norm of at most `limit`; and which tasks (R, B) count.

    A clipped mean is no better than its worst task: one that is not finite makes it so. Such tasks count as zero.
    """
    parts = torch.stack([torch.linalg.vector_norm(value.flatten(2), dim=2) for value in tensors(slopes)])
    norms = torch.linalg.vector_norm(parts, dim=0)
    kept = norms.isfinite() & losses.isfinite()
    slopes = map_tensors(lambda value: value.where(kept.view(*kept.shape, *[1] * (value.dim() - 2)), 0.0), slopes)
    return _weighted(slopes, (limit / norms).clamp(max=1).where(kept, 0.0) / norms.shape[1]), kept


def _weighted(slopes: MetaParams, weights: Tensor) -> MetaParams:
    """The sum over tasks, (R, B, ...) -> (R, ...), each with its weight (R, B)."""
    rows = weights.unsqueeze(1)
    return map_tensors(lambda value: torch.bmm(rows, value.flatten(2)).view(-1, *value.shape[2:]), slopes)


def run_norms(gradients: MetaParams) -> Tensor:
    """The norm of each run's whole meta-gradient: (R,)."""
    whole: Tensor = torch.cat([value.flatten(1) for value in tensors(gradients)], dim=1)
    return torch.linalg.vector_norm(whole, dim=1)  # type: ignore[no-any-return]


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}
"""The part of all outer steps that is done -> the factor on every outer learning rate."""


def _diagnosis(losses: Tensor, slopes: MetaParams) -> str:
    lost = int((~losses.isfinite()).sum())
    if lost:
        return f"the query loss of {lost} of {losses.numel()} tasks is not finite"
    finite = torch.stack([value.isfinite().flatten(2).all(dim=2) for value in tensors(slopes)]).all(dim=0)
    lost = int((~finite).sum())
    return f"the gradient of {lost} of {losses.numel()} tasks is not finite" if lost else "the gradient overflows"
