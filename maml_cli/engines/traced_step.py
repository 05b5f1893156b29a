"""An outer step as a pure function of buffers, which torch.compile traces to one graph."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.config import Config
from maml_cli.core import MetaParams, TaskBatch
from maml_cli.engines.optimizers import FormulaStep
from maml_cli.engines.outer_step import AverageGradient, clip_by_norm, perturb
from maml_cli.engines.state import BatchGradient, TrainState


class LearnedTensor(NamedTuple):
    """A tensor that an outer optimiser updates.

    section, key: `meta_params[section][key]` is the tensor.
    optimizer: index of its optimiser among those of the state.
    formula: the step of that optimiser.
    num_states: how many state tensors the optimiser has for it.
    """

    section: int
    key: str
    optimizer: int
    formula: FormulaStep
    num_states: int


class RunCounters(NamedTuple):
    """Counters of each run, all (R,).

    active: whether every loss and gradient so far was finite.
    completed: outer steps of this call before one was not finite.
    loss, norm: mean query loss and norm of the meta-gradient in its last step.
    loss_sum, skipped_tasks: as in the TrainState.
    """

    active: Tensor
    completed: Tensor
    loss: Tensor
    norm: Tensor
    loss_sum: Tensor
    skipped_tasks: Tensor


class Buffers(NamedTuple):
    """Everything that outer steps write.

    values: the learned tensors.
    states: the state tensors of the optimisers, those of the first learned tensor first.
    gradients: the last meta-gradient of each learned tensor.
    counters: a RunCounters.
    """

    values: list[Tensor]
    states: list[Tensor]
    gradients: list[Tensor]
    counters: RunCounters


class StepInputs(NamedTuple):
    """Everything that an outer step only reads.

    batch: its tasks.
    rates: learning rate and bias corrections of each optimiser, (P, 3).
    not_learned: the other tensors of `meta_params`.
    noise: the weight noise, (R, P); None without.
    """

    batch: TaskBatch
    rates: Tensor
    not_learned: list[Tensor]
    noise: Tensor | None


TracedStep = Callable[[Buffers, StepInputs], Buffers]
"""The contents of the buffers after an outer step; nothing is changed."""


def traced_step(
    config: Config, state: TrainState, learned: Sequence[LearnedTensor], average: AverageGradient, *, step: int
) -> TracedStep:
    """A side-effect-free outer step for torch.compile to trace; `step` selects first or second order."""
    keys = [[*section] for section in state.meta_params]

    def outer_step(buffers: Buffers, inputs: StepInputs) -> Buffers:
        values = {(tensor.section, tensor.key): value for tensor, value in zip(learned, buffers.values, strict=True)}
        not_learned = iter(inputs.not_learned)
        start = MetaParams(
            *(
                {key: values[index, key] if (index, key) in values else next(not_learned) for key in section}
                for index, section in enumerate(keys)
            )
        )
        if inputs.noise is not None:
            start = perturb(start, inputs.noise)
        result = average(start, inputs.batch, step)
        clipped = clip_by_norm(result.gradients, result.norm, config.outer.clip_norm)
        gradients = [clipped[tensor.section][tensor.key] for tensor in learned]
        counters = _count(buffers.counters, result)
        return _update(learned, buffers, gradients, inputs.rates, counters)

    return outer_step


def _count(counters: RunCounters, result: BatchGradient) -> RunCounters:
    loss, norm = result.loss.double(), result.norm.double()
    active = counters.active & (loss + norm).isfinite()
    skipped = torch.zeros_like(counters.skipped_tasks) if result.skipped_tasks is None else result.skipped_tasks
    return RunCounters(
        active,
        counters.completed + active,
        loss.where(counters.active, counters.loss),
        norm.where(counters.active, counters.norm),
        counters.loss_sum + loss.where(active, 0.0),
        counters.skipped_tasks + skipped.where(active, 0),
    )


def _update(
    learned: Sequence[LearnedTensor],
    buffers: Buffers,
    gradients: list[Tensor],
    rates: Tensor,
    counters: RunCounters,
) -> Buffers:
    """A step of the optimisers; runs that are not active are unchanged."""
    states, new_values, new_states = iter(buffers.states), list[Tensor](), list[Tensor]()
    for tensor, value, gradient in zip(learned, buffers.values, gradients, strict=True):
        old = [value, *(next(states) for _ in range(tensor.num_states))]
        new = tensor.formula(value, gradient, old[1:], rates[tensor.optimizer])
        active = counters.active.view(-1, *[1] * (value.dim() - 1))
        new_value, *new_state = (after.where(active, before) for after, before in zip(new, old, strict=True))
        new_values.append(new_value)
        new_states += new_state
    return Buffers(new_values, new_states, gradients, counters)
