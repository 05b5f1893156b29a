"""The outer step: meta-learned tensors descend the mean over tasks of the per-task meta-gradients.

Shapes: R runs, B tasks; gradients are (R, B, ...) for each task, and are averaged once to (R, ...).
"""

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest

import torch
from torch import Generator, Tensor

from maml_cli.config import Config
from maml_cli.core import MetaGradient, MetaParams, TaskBatch, flatten, lookup, map_tensors, tensors, unflatten
from maml_cli.engines.state import BatchGradient, StepResult, TrainState
from maml_cli.errors import DivergedError

AverageGradient = Callable[[MetaParams, TaskBatch, int], BatchGradient]
"""(meta_params, batch, outer step) -> the meta-gradient averaged over the tasks of each run."""

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}
"""Values of `outer.schedule`: fraction of all outer steps that are taken -> factor on every outer learning rate."""


def lr_scale(config: Config, step: int) -> float:
    """The factor of the schedule on every outer learning rate at outer step `step`, from 0."""
    schedule = lookup(SCHEDULES, config.outer.schedule, "outer.schedule", "engines.outer_step.SCHEDULES")
    return schedule(step / config.outer.steps)


def average_tasks(meta_gradient: MetaGradient) -> AverageGradient:
    """The mean over tasks of a per-task meta-gradient."""

    def average(meta_params: MetaParams, batch: TaskBatch, step: int) -> BatchGradient:
        losses, per_task = meta_gradient(meta_params, batch, step)
        gradients = _weighted_sum(per_task, torch.full_like(losses, 1 / losses.shape[1]))
        return BatchGradient(losses.mean(dim=1), run_norms(gradients), gradients, None)

    return average


def average_clipped_tasks(meta_gradient: MetaGradient, limit: float) -> AverageGradient:
    """The mean over tasks of a per-task meta-gradient, that of each task scaled to a norm of at most `limit`.

    Clipping cannot repair a loss or gradient that is not finite: such tasks are skipped and counted. They have weight
    zero in the gradient, and no part in the loss.
    """

    def average(meta_params: MetaParams, batch: TaskBatch, step: int) -> BatchGradient:
        losses, per_task = meta_gradient(meta_params, batch, step)
        by_tensor = torch.stack([torch.linalg.vector_norm(value.flatten(2), dim=2) for value in tensors(per_task)])
        norms = torch.linalg.vector_norm(by_tensor, dim=0)
        finite = norms.isfinite() & losses.isfinite()
        per_task = map_tensors(
            lambda value: value.where(finite.view(*finite.shape, *[1] * (value.dim() - 2)), 0.0), per_task
        )
        weights = (limit / norms).clamp(max=1).where(finite, 0.0) / norms.shape[1]
        gradients = _weighted_sum(per_task, weights)
        loss = losses.where(finite, 0.0).sum(dim=1) / finite.sum(dim=1)
        return BatchGradient(loss, run_norms(gradients), gradients, (~finite).sum(dim=1))

    return average


def already_averaged(mean_gradient: MetaGradient) -> AverageGradient:
    """A meta-gradient that is averaged over tasks where it is computed: losses (R,) and gradients (R, ...)."""

    def average(meta_params: MetaParams, batch: TaskBatch, step: int) -> BatchGradient:
        loss, gradients = mean_gradient(meta_params, batch, step)
        return BatchGradient(loss, run_norms(gradients), gradients, None)

    return average


def take_outer_step(
    state: TrainState,
    batch: TaskBatch,
    meta_gradient: MetaGradient,
    *,
    average: AverageGradient | None = None,
    scale: float = 1.0,
    clip_norm: float | None = None,
    weight_noise: float = 0.0,
) -> StepResult:
    """One step of the outer loop (Finn et al. 2017, Algorithm 1, line 8); mutates `state`, and only it.

    `average` computes the gradient, by default as the mean of `meta_gradient`; `scale` multiplies the outer learning
    rates, and `clip_norm` bounds the norm of each run's gradient. With `weight_noise`, a standard deviation, gradients
    are taken at perturbed parameters.

    A run whose loss or gradient is not finite is frozen before the update; the others continue. Where no active run is
    left, DivergedError is raised, with the tasks that are not finite by `meta_gradient`.
    """
    start = state.meta_params
    if weight_noise:
        start = perturb(start, sample_weight_noise(start, state.noise_generators, weight_noise)[0])
    result = (average or average_tasks(meta_gradient))(start, batch, state.step)
    loss, grad_norm = torch.stack([result.loss, result.norm]).to("cpu", torch.float64)
    if not all(map(math.isfinite, (loss + grad_norm).tolist())):
        newly_diverged = (state.diverged == 0) & ~(loss + grad_norm).isfinite()
        if (newly_diverged | (state.diverged > 0)).all():
            raise divergence_error(state.step + 1, *meta_gradient(start, batch, state.step))
        state.diverged = torch.where(newly_diverged, state.step + 1, state.diverged)
    gradients = clip_by_norm(result.gradients, result.norm, clip_norm)
    frozen = _frozen_values(state)
    for section, section_gradients in zip(state.meta_params, gradients, strict=True):
        for key, tensor in section.items():
            tensor.grad = section_gradients.get(key)
    for outer in state.optimizers.values():
        outer.set_lr(scale)
        outer.step()
    state.step += 1
    state.loss_sum += loss
    if result.skipped_tasks is not None:
        state.skipped_tasks += result.skipped_tasks.cpu()
    _keep_frozen(state, frozen)
    return StepResult(loss, grad_norm, gradients)


def finish_block(
    config: Config,
    state: TrainState,
    completed: Tensor,
    meta_gradient: MetaGradient,
    batches: TaskBatch,
    noise: Tensor | None,
) -> None:
    """Account for a block of outer steps that a graph or kernel took: steps, learning rates, diverged runs.

    `batches` (count, R, B, ...) and `noise` (count, R, P) are those of the block; run r completed `completed[r]` of its
    steps before a loss or gradient was not finite. Raises DivergedError where no active run is left, as
    `take_outer_step` does.
    """
    count = len(batches.support.x)
    active = state.diverged == 0
    newly_diverged = active & (completed < count)
    if newly_diverged.any() and (newly_diverged | ~active).all():
        last = int(completed[newly_diverged].max())
        start = state.meta_params if noise is None else perturb(state.meta_params, noise[last])
        raise divergence_error(state.step + last + 1, *meta_gradient(start, batches.step(last), state.step + last))
    state.diverged = torch.where(newly_diverged, state.step + completed + 1, state.diverged)
    state.step += count
    for outer in state.optimizers.values():
        outer.add_steps(count)
        outer.set_lr(lr_scale(config, state.step - 1))


def divergence_error(step: int, losses: Tensor, per_task: MetaParams) -> DivergedError:
    """The DivergedError of outer step `step`, from 1, with the losses (R, B) and gradients (R, B, ...) of its tasks."""
    where = f"diverged at outer step {step}"
    if count := int((~losses.isfinite()).sum()):
        message = f"{where}: the query loss of {count} of {losses.numel()} tasks is not finite"
        return DivergedError(message, outer_step=step, cause="query_loss")
    finite = torch.stack([value.isfinite().flatten(2).all(dim=2) for value in tensors(per_task)]).all(dim=0)
    count = int((~finite).sum())
    what = f"the gradient of {count} of {losses.numel()} tasks is not finite" if count else "the gradient overflows"
    return DivergedError(f"{where}: {what}", outer_step=step, cause="gradient")


def clip_by_norm(gradients: MetaParams, norm: Tensor, limit: float | None) -> MetaParams:
    """The gradients of each run, (R, ...), whose norms are `norm` (R,), scaled to a norm of at most `limit`."""
    if limit is None:
        return gradients
    scale = (limit / norm).clamp(max=1)
    return map_tensors(lambda value: value * scale.view(-1, *[1] * (value.dim() - 1)), gradients)


def sample_weight_noise(
    meta_params: MetaParams, generators: Sequence[Generator], std: float, *, num_steps: int = 1
) -> Tensor:
    """Uniform noise of standard deviation `std` for all P network parameters: (num_steps, R, P), from one generator a
    run. The numbers do not depend on how outer steps are divided into calls."""
    width, size = std * math.sqrt(3), sum(value[0].numel() for value in meta_params.params.values())
    uniform = [torch.rand(num_steps, size, generator=generator, dtype=torch.float64) for generator in generators]
    like = next(iter(meta_params.params.values()))
    return (2 * torch.stack(uniform, dim=1) - 1).mul_(width).to(like)


def perturb(meta_params: MetaParams, noise: Tensor) -> MetaParams:
    """`meta_params` with `noise` (R, P) added to the network parameters; the rule parameters are unchanged.

    Noise in training favours flat initialisations, from which adaptation rarely diverges.
    """
    params = meta_params.params
    perturbed = {
        key: value.detach() + offset
        for (key, value), offset in zip(params.items(), unflatten(noise, [*params.values()]), strict=True)
    }
    return MetaParams(perturbed, meta_params.rule_params)


def run_norms(gradients: MetaParams) -> Tensor:
    """The norm of the meta-gradient of each run: (R,)."""
    norms: Tensor = torch.linalg.vector_norm(flatten(tensors(gradients)), dim=1)
    return norms


def _weighted_sum(per_task: MetaParams, weights: Tensor) -> MetaParams:
    """The sum over tasks, (R, B, ...) -> (R, ...), with weights (R, B)."""
    rows = weights.unsqueeze(1)
    return map_tensors(lambda value: torch.bmm(rows, value.flatten(2)).view(-1, *value.shape[2:]), per_task)


def _frozen_values(state: TrainState) -> list[Tensor]:
    """Copies of everything that no update may change for diverged runs; none where no run diverged."""
    if state.diverged.shape[0] == 1 or not state.diverged.any():
        return []
    return [value.clone() for value in _values_by_run(state)]


def _keep_frozen(state: TrainState, before: Sequence[Tensor]) -> None:
    """Return the values, moments and sums of diverged runs to those of `before`; the first moments are zero."""
    for value, old in zip_longest(_values_by_run(state) if before else [], before):
        runs = (state.diverged > 0).to(value.device)
        value[runs] = 0 if old is None else old[runs]


def _values_by_run(state: TrainState) -> list[Tensor]:
    """Sums and meta-parameters, and at the end the moments, of which there are none before the first outer step."""
    moments = [
        value
        for outer in state.optimizers.values()
        for tensor in outer.tensors()
        for value in outer.optimizer.state.get(tensor, {}).values()
        if isinstance(value, Tensor) and value.dim()
    ]
    return [state.loss_sum, state.skipped_tasks, *tensors(state.meta_params), *moments]
