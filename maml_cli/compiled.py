"""The compiled engine: whole outer steps, both derivatives and the update, as one flat graph for torch.compile.

What outer steps change stays where it is and is written in place, and nothing comes back to the host before the last
step of a call.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_cli.config import Config
from maml_cli.experiment import Experiment, first_order_until
from maml_cli.meta import Meta, tensors
from maml_cli.meta_gradients import MetaGrad
from maml_cli.outer import (
    SCHEDULES,
    Advance,
    MeanGradient,
    Outcome,
    TrainState,
    clipped,
    draw_noise,
    noisy,
    scale_rates,
    settle,
)
from maml_cli.tasks import Sinusoids, Split, TaskBatch
from maml_cli.updates import UPDATES, Update, kept, rates

Tensors = Sequence[Tensor]
FlatStep = Callable[[Tensors, Tensors, Tensors, Tensors, Tensors, Tensor, Tensors, Tensors], list[Tensor]]
"""(*Carried, *Given) -> all that Carried holds after the step."""


class Leaf(NamedTuple):
    """A tensor that is learned: its key in a part of a Meta, and which optimiser learns it, by which update."""

    part: int
    key: str
    optimizer: int
    update: Update


class Tally(NamedTuple):
    """Of each run, (R,): whether it goes on, its steps in this call, loss and norm of the last of them, the sum of its
    losses and of the tasks left out."""

    going: Tensor
    done: Tensor
    loss: Tensor
    norm: Tensor
    loss_sum: Tensor
    left_out: Tensor


class Carried(NamedTuple):
    """All that outer steps write: the leaves, what optimisers keep of each, one after the other, the gradient of each,
    and the tally."""

    leaves: list[Tensor]
    kept: list[Tensor]
    slopes: list[Tensor]
    tally: list[Tensor]


class Given(NamedTuple):
    """What one step gets: x and y of support and query; the rates of each optimiser, (P, 3); what is not learned; and
    noise, if any."""

    points: list[Tensor]
    rates: Tensor
    fixed: list[Tensor]
    noise: list[Tensor]


def engine(
    config: Config, experiment: Experiment, meta_grad: MetaGrad, mean: MeanGradient, *, say: Callable[[str], None]
) -> Advance:
    """Outer steps by `mean`, compiled once for each phase of `config`: those of one phase compute the same function.

    The code is kept on disk by PyTorch, so that the next process finds it. On a GPU it runs as one CUDA graph.
    """
    graphs: dict[Hashable, Callable[..., None]] = {}
    before: Carried | None = None
    std = config.outer.weight_noise

    def advance(state: TrainState, count: int) -> Outcome:
        batches = experiment.sample(state.generators, num_steps=count)
        noise = draw_noise(state.meta, state.noise_generators, std, num_steps=count) if std else None
        nonlocal before
        leaves, all_rates = _leaves(config, state), _rates(config, state, count)
        carried = before = _carried(state, leaves, before)
        fixed = [value for value in tensors(state.meta) if not any(value is leaf for leaf in carried.leaves)]
        for place, batch in enumerate(batches.each()):
            given = Given(
                [*batch.support, *batch.query], all_rates[place], fixed, [] if noise is None else [noise[place]]
            )
            phase = state.step + place < first_order_until(config)
            if phase not in graphs:
                say("compiling the outer step; up to a minute ...")
                step = flat_step(config, state, leaves, meta_grad, mean, step=state.step + place)
                graphs[phase] = _compiled(step, carried, given)
            with torch.no_grad():
                graphs[phase](*carried, *given)
        return _taken(config, experiment, state, count, leaves, carried, batches, noise)

    return advance


def flat_step(
    config: Config, state: TrainState, leaves: Sequence[Leaf], meta_grad: MetaGrad, mean: MeanGradient, *, step: int
) -> FlatStep:
    """An outer step like that at `step`, as a function that changes nothing: what a graph is made of."""
    outer, keys = config.outer, [[*part] for part in state.meta]
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
        others, before = iter(fixed), Tally(*tally)
        start = meta = Meta(
            *(
                {key: values[learned[part, key]] if (part, key) in learned else next(others) for key in keys[part]}
                for part in range(len(keys))
            )
        )
        if noise:
            start = noisy(meta, noise[0])
        batch = TaskBatch(Split(*points[:2]), Split(*points[2:]), Sinusoids(*[rates] * 4))
        found = mean(meta_grad, start, batch, step, outer.clip_task_norm)
        gradients = clipped(found.gradients, found.norm, outer.clip_norm)
        loss, norm = found.loss.double(), found.norm.double()
        going = before.going & (loss + norm).isfinite()
        left_out = torch.zeros_like(before.left_out) if found.left_out is None else found.left_out
        after = Tally(
            going,
            before.done + going,
            loss.where(before.going, before.loss),
            norm.where(before.going, before.norm),
            before.loss_sum + loss.where(going, 0.0),
            before.left_out + left_out.where(going, 0),
        )
        rest, moved, keep = iter(held), list[Tensor](), list[Tensor]()
        for leaf, value in zip(leaves, values, strict=True):
            own = [next(rest) for _ in leaf.update.keeps]
            new = leaf.update.move(value, gradients[leaf.part][leaf.key], own, rates[leaf.optimizer])
            goes = going.view(-1, *[1] * (value.dim() - 1))
            changed, *kept_now = (now.where(goes, then) for now, then in zip(new, [value, *own], strict=True))
            moved.append(changed)
            keep += kept_now
        taken = [gradients[leaf.part][leaf.key] for leaf in leaves]
        return [*moved, *keep, *taken, *after]

    return flat


def _compiled(step: FlatStep, carried: Carried, given: Given) -> Callable[..., None]:
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


def _leaves(config: Config, state: TrainState) -> list[Leaf]:
    found = []
    for place, (name, learned) in enumerate(state.optimizers.items()):
        kind = config.outer.optimizer if name != "alpha" else config.inner.alpha.optimizer or config.outer.optimizer
        for leaf in learned.leaves():
            part, key = next((p, k) for p, part in enumerate(state.meta) for k, v in part.items() if v is leaf)
            found.append(Leaf(part, key, place, UPDATES[kind]))
    return found


def _carried(state: TrainState, leaves: Sequence[Leaf], before: Carried | None) -> Carried:
    """What the steps of a call begin with; where that is of the state of those `before`, in the same place."""
    learned, values = [*state.optimizers.values()], [state.meta[leaf.part][leaf.key] for leaf in leaves]
    held = [kept(leaf.update, learned[leaf.optimizer], value) for leaf, value in zip(leaves, values, strict=True)]
    none, device = torch.zeros_like(state.loss_sum), values[0].device
    tally = Tally(state.diverged == 0, none.long(), none, none, state.loss_sum, state.left_out)
    if before is not None and all(value is other for value, other in zip(values, before.leaves, strict=True)):
        for place, value in zip(before.tally, tally, strict=True):
            place.copy_(value)
        return before
    return Carried(
        values,
        [value for each in held for value in each],
        [torch.zeros_like(value) for value in values],
        [part.to(device, copy=True) for part in tally],
    )


def _rates(config: Config, state: TrainState, count: int) -> Tensor:
    """Those of each step and optimiser: (count, P, 3)."""
    scales = [SCHEDULES[config.outer.schedule]((state.step + place) / config.outer.steps) for place in range(count)]
    learned = [(one.lr, one.steps()) for one in state.optimizers.values()]
    found = [[rates(lr * scale, done + place + 1) for lr, done in learned] for place, scale in enumerate(scales)]
    return torch.tensor(found, dtype=torch.float64, device=next(iter(state.meta.params.values())).device)


def _taken(
    config: Config,
    experiment: Experiment,
    state: TrainState,
    count: int,
    leaves: Sequence[Leaf],
    carried: Carried,
    batches: TaskBatch,
    noise: Tensor | None,
) -> Outcome:
    """Bring `state` to the end of a call, and say what its last step found."""
    tally = Tally(*(value.to("cpu", copy=True) for value in carried.tally))
    state.loss_sum, state.left_out = tally.loss_sum, tally.left_out
    for learned in state.optimizers.values():
        learned.took(count)
    settle(state, tally.done, count, experiment.algorithm.meta_grad, batches, noise)
    scale_rates(state, SCHEDULES[config.outer.schedule]((state.step - 1) / config.outer.steps))
    found = Meta({}, {})
    for leaf, slope in zip(leaves, carried.slopes, strict=True):
        found[leaf.part][leaf.key] = slope.clone()
    return Outcome(tally.loss, tally.norm, found)
