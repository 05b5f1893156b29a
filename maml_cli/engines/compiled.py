"""The compiled engine: whole outer steps, both derivatives and the update, as one flat graph for torch.compile.

What outer steps change stays where it is and is written in place, and nothing comes back to the host before the last
step of a call.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_cli.config import Config
from maml_cli.core import MetaGradient, MetaParams, Points, TaskBatch, tensors
from maml_cli.engines.optimizers import OPTIMIZER_FORMULAS, OptimizerFormula, bias_corrections, optimizer_state
from maml_cli.engines.outer_step import (
    SCHEDULES,
    AverageGradient,
    Engine,
    StepResult,
    TrainState,
    clip_by_norm,
    finish_block,
    perturb,
    sample_weight_noise,
    set_learning_rates,
)
from maml_cli.experiment import Experiment, first_order_until

Tensors = Sequence[Tensor]
FlatStep = Callable[[Tensors, Tensors, Tensors, Tensors, Tensors, Tensor, Tensors, Tensors], list[Tensor]]
"""(*Carried, *Given) -> all that Carried holds after the step."""


class LearnedTensor(NamedTuple):
    """A tensor that is learned: its key in a part of a Meta, and which optimiser learns it, by which update."""

    part: int
    key: str
    optimizer: int
    formula: OptimizerFormula


class RunCounters(NamedTuple):
    """Of each run, (R,): whether it goes on, its steps in this call, loss and norm of the last of them, the sum of its
    losses and of the tasks left out."""

    active: Tensor
    completed: Tensor
    loss: Tensor
    norm: Tensor
    loss_sum: Tensor
    skipped_tasks: Tensor


class Buffers(NamedTuple):
    """All that outer steps write: the leaves, what optimisers keep of each, one after the other, the gradient of each,
    and the tally."""

    values: list[Tensor]
    optimizer_states: list[Tensor]
    gradients: list[Tensor]
    counters: list[Tensor]


class StepInputs(NamedTuple):
    """What one step gets: x and y of support and query; the rates of each optimiser, (P, 3); what is not learned; and
    noise, if any."""

    points: list[Tensor]
    rates: Tensor
    not_learned: list[Tensor]
    noise: list[Tensor]


def compiled_engine(
    config: Config,
    experiment: Experiment,
    meta_grad: MetaGradient,
    mean: AverageGradient,
    *,
    say: Callable[[str], None],
) -> Engine:
    """Outer steps by `mean`, compiled once for each phase of `config`: those of one phase compute the same function.

    The code is kept on disk by PyTorch, so that the next process finds it. On a GPU it runs as one CUDA graph.
    """
    graphs: dict[Hashable, Callable[..., None]] = {}
    before: Buffers | None = None
    std = config.outer.weight_noise

    def advance(state: TrainState, count: int) -> StepResult:
        batches = experiment.sample(state.generators, num_steps=count)
        noise = sample_weight_noise(state.meta_params, state.noise_generators, std, num_steps=count) if std else None
        nonlocal before
        leaves, all_rates = _learned_tensors(config, state), _step_rates(config, state, count)
        carried = before = _buffers(state, leaves, before)
        fixed = [value for value in tensors(state.meta_params) if not any(value is leaf for leaf in carried.values)]
        for place, batch in enumerate(batches.iter_steps()):
            given = StepInputs(
                [*batch.support, *batch.query], all_rates[place], fixed, [] if noise is None else [noise[place]]
            )
            phase = state.step + place < first_order_until(config)
            if phase not in graphs:
                say("compiling the outer step; up to a minute ...")
                step = flat_step(config, state, leaves, meta_grad, mean, step=state.step + place)
                graphs[phase] = _compile(step, carried, given)
            with torch.no_grad():
                graphs[phase](*carried, *given)
        return _finish_call(config, experiment, state, count, leaves, carried, batches, noise)

    return advance


def flat_step(
    config: Config,
    state: TrainState,
    leaves: Sequence[LearnedTensor],
    meta_grad: MetaGradient,
    mean: AverageGradient,
    *,
    step: int,
) -> FlatStep:
    """An outer step like that at `step`, as a function that changes nothing: what a graph is made of."""
    outer, keys = config.outer, [[*part] for part in state.meta_params]
    learned = {(leaf.part, leaf.key): place for place, leaf in enumerate(leaves)}

    def flat(
        values: Tensors,
        held: Tensors,
        slopes: Tensors,
        tally: Tensors,
        points: Tensors,
        rates: Tensor,
        fixed: Tensors,
        noise: Tensors,
    ) -> list[Tensor]:
        others, before = iter(fixed), RunCounters(*tally)
        start = meta = MetaParams(
            *(
                {key: values[learned[part, key]] if (part, key) in learned else next(others) for key in keys[part]}
                for part in range(len(keys))
            )
        )
        if noise:
            start = perturb(meta, noise[0])
        batch = TaskBatch(Points(*points[:2]), Points(*points[2:]))
        found = mean(meta_grad, start, batch, step, outer.clip_task_norm)
        gradients = clip_by_norm(found.gradients, found.norm, outer.clip_norm)
        loss, norm = found.loss.double(), found.norm.double()
        going = before.active & (loss + norm).isfinite()
        left_out = torch.zeros_like(before.skipped_tasks) if found.skipped_tasks is None else found.skipped_tasks
        after = RunCounters(
            going,
            before.completed + going,
            loss.where(before.active, before.loss),
            norm.where(before.active, before.norm),
            before.loss_sum + loss.where(going, 0.0),
            before.skipped_tasks + left_out.where(going, 0),
        )
        rest, moved, keep = iter(held), list[Tensor](), list[Tensor]()
        for leaf, value in zip(leaves, values, strict=True):
            own = [next(rest) for _ in leaf.formula.state_names]
            new = leaf.formula.step(value, gradients[leaf.part][leaf.key], own, rates[leaf.optimizer])
            goes = going.view(-1, *[1] * (value.dim() - 1))
            changed, *kept_now = (now.where(goes, then) for now, then in zip(new, [value, *own], strict=True))
            moved.append(changed)
            keep += kept_now
        taken = [gradients[leaf.part][leaf.key] for leaf in leaves]
        return [*moved, *keep, *taken, *after]

    return flat


def _compile(step: FlatStep, carried: Buffers, given: StepInputs) -> Callable[..., None]:
    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import, and seldom needed

    traced = make_fx(step)(*carried, *given)

    def in_place(values: Tensors, held: Tensors, slopes: Tensors, tally: Tensors, *given: Any) -> None:
        found = traced(values, held, slopes, tally, *given)
        for place, value in zip([*values, *held, *slopes, *tally], found, strict=True):
            place.copy_(value)

    on_gpu = given.rates.device.type == "cuda"
    if on_gpu:  # a CUDA graph may write to what does not move
        for part in carried:
            for value in part:
                torch._dynamo.mark_static_address(value)
    return torch.compile(in_place, fullgraph=True, mode="reduce-overhead" if on_gpu else None)


def _learned_tensors(config: Config, state: TrainState) -> list[LearnedTensor]:
    found = []
    for place, (name, learned) in enumerate(state.optimizers.items()):
        kind = config.outer.optimizer if name != "alpha" else config.inner.alpha.optimizer or config.outer.optimizer
        for leaf in learned.tensors():
            part, key = next((p, k) for p, part in enumerate(state.meta_params) for k, v in part.items() if v is leaf)
            found.append(LearnedTensor(part, key, place, OPTIMIZER_FORMULAS[kind]))
    return found


def _buffers(state: TrainState, leaves: Sequence[LearnedTensor], before: Buffers | None) -> Buffers:
    """What the steps of a call begin with; where that is of the state of those `before`, in the same place."""
    learned, values = [*state.optimizers.values()], [state.meta_params[leaf.part][leaf.key] for leaf in leaves]
    held = [
        optimizer_state(leaf.formula, learned[leaf.optimizer], value)
        for leaf, value in zip(leaves, values, strict=True)
    ]
    none, device = torch.zeros_like(state.loss_sum), values[0].device
    tally = RunCounters(state.diverged == 0, none.long(), none, none, state.loss_sum, state.skipped_tasks)
    if before is not None and all(value is other for value, other in zip(values, before.values, strict=True)):
        for place, value in zip(before.counters, tally, strict=True):
            place.copy_(value)
        return before
    return Buffers(
        values,
        [value for each in held for value in each],
        [torch.zeros_like(value) for value in values],
        [part.to(device, copy=True) for part in tally],
    )


def _step_rates(config: Config, state: TrainState, count: int) -> Tensor:
    """Those of each step and optimiser: (count, P, 3)."""
    scales = [SCHEDULES[config.outer.schedule]((state.step + place) / config.outer.steps) for place in range(count)]
    learned = [(one.base_lr, one.steps_taken()) for one in state.optimizers.values()]
    found = [
        [bias_corrections(lr * scale, done + place + 1) for lr, done in learned] for place, scale in enumerate(scales)
    ]
    return torch.tensor(found, dtype=torch.float64, device=next(iter(state.meta_params.params.values())).device)


def _finish_call(
    config: Config,
    experiment: Experiment,
    state: TrainState,
    count: int,
    leaves: Sequence[LearnedTensor],
    carried: Buffers,
    batches: TaskBatch,
    noise: Tensor | None,
) -> StepResult:
    """Bring `state` to the end of a call, and say what its last step found."""
    tally = RunCounters(*(value.to("cpu", copy=True) for value in carried.counters))
    state.loss_sum, state.skipped_tasks = tally.loss_sum, tally.skipped_tasks
    for learned in state.optimizers.values():
        learned.add_steps(count)
    finish_block(state, tally.completed, count, experiment.algorithm.meta_gradient, batches, noise)
    set_learning_rates(state, SCHEDULES[config.outer.schedule]((state.step - 1) / config.outer.steps))
    found = MetaParams({}, {})
    for leaf, slope in zip(leaves, carried.gradients, strict=True):
        found[leaf.part][leaf.key] = slope.clone()
    return StepResult(tally.loss, tally.norm, found)
