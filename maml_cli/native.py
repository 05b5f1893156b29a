"""The native engine: outer steps by the kernel for the CPU, on the tensors that every engine shares.

A run may change engines at any step: what is learned, and the state of the optimisers, is packed before a call of many
outer steps and unpacked after it.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from maml_cli import kernel
from maml_cli.config import Config
from maml_cli.errors import ConfigError
from maml_cli.experiment import Experiment, first_order_until, num_inputs, param_keys, step_weights
from maml_cli.kernel import Call, Held, Shape
from maml_cli.meta import Meta, tensors
from maml_cli.model import Params
from maml_cli.outer import SCHEDULES, Advance, Outcome, TrainState, draw_noise, scale_rates, settle
from maml_cli.tasks import TaskBatch
from maml_cli.updates import Learned

MOMENTS = ("exp_avg", "exp_avg_sq")
MOST_MEMORY = 2**26
"""Bytes that one task may take: beyond the caches, a batched product is as fast."""


def reasons_against(config: Config, device: torch.device) -> Iterator[str]:
    """What the kernel cannot do, besides what is not written out."""
    if device.type != "cpu":
        yield f"it is for the CPU, not for {device.type}"
    if config.inner.curvature != "none":
        yield f"inner.curvature is {config.inner.curvature}"
    if config.model.oracle:
        yield "model.oracle is true"
    if config.model.activation not in kernel.ACTIVATIONS:
        yield f"model.activation is {config.model.activation}"
    for optimizer in _optimizers(config):
        if optimizer not in kernel.OPTIMIZERS:
            yield f"the outer optimiser is {optimizer}"
    if _shape(config, [-1]).memory() > MOST_MEMORY:
        yield "a task does not fit into the cache"
    if kernel.compiler() is None:
        yield "there is no C++ compiler"


def engine(config: Config, experiment: Experiment, *, say: Callable[[str], None]) -> Advance:
    """Outer steps by the kernel for `config`; raises ConfigError if it does not compile."""
    names = [*dict.fromkeys(experiment.groups.values())]
    groups = [names.index(experiment.groups[key]) if key in experiment.groups else -1 for key in param_keys(config)]
    try:
        library = kernel.load(_shape(config, groups), say=say)
    except OSError as error:
        raise ConfigError(f"run.engine: native cannot do this: {error}; eager needs no compiler") from None

    @_no_other_threads()
    def advance(state: TrainState, count: int) -> Outcome:
        batches = _sampled(experiment, state, count, num_threads=config.run.threads)
        std, noise = config.outer.weight_noise, None
        if std:
            noise = draw_noise(state.meta, state.noise_generators, std, num_steps=count)
        held = _packed(state)
        report = kernel.advance(library, batches, _call(config, state.step, count, noise), held)
        _unpack(state, held, count)
        settle(state, report.done, count, experiment.algorithm.meta_grad, batches, noise)
        scale_rates(state, SCHEDULES[config.outer.schedule]((state.step - 1) / config.outer.steps))
        return Outcome(report.loss, report.norm, _as_gradients(state, report.gradients))

    return advance


@contextlib.contextmanager
def _no_other_threads() -> Iterator[None]:
    """PyTorch's threads go on turning for a while when they have nothing to do, on the cores that the kernel takes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _sampled(experiment: Experiment, state: TrainState, count: int, *, num_threads: int) -> TaskBatch:
    """The tasks of `count` steps, those of each run by a thread."""
    if min(num_threads, len(state.generators)) == 1:
        return experiment.sample(state.generators, num_steps=count)
    with ThreadPoolExecutor(num_threads) as pool:
        runs = [*pool.map(lambda stream: experiment.sample([stream], num_steps=count), state.generators)]
    return TaskBatch.side_by_side(runs)


def _call(config: Config, step: int, count: int, noise: Tensor | None) -> Call:
    outer, weights, first_order = config.outer, step_weights(config), first_order_until(config)
    rates, steps = (outer.lr, config.inner.alpha.lr or outer.lr), range(step, step + count)
    scales = [SCHEDULES[outer.schedule](step / outer.steps) for step in steps]
    return Call(
        weights=torch.tensor([weights(step) for step in steps], dtype=torch.float64),
        second_order=torch.tensor([step >= first_order for step in steps], dtype=torch.int32),
        rates=torch.tensor([[rate * scale for rate in rates] for scale in scales], dtype=torch.float64),
        noise=noise,
        clip_norm=outer.clip_norm,
        clip_task_norm=outer.clip_task_norm,
        optimizers=_optimizers(config),
        num_threads=config.run.threads,
    )


def _packed(state: TrainState) -> Held:
    """What the kernel reads, one row for each run; the first tensors of a Meta are those that are learned."""
    held = _rows(tensors(state.meta))
    first, second = (_rows([_moment(learned, leaf, name) for learned, leaf in _learned(state)]) for name in MOMENTS)
    return Held(
        values=held,
        first=first,
        second=second,
        loss_sum=state.loss_sum,
        left_out=state.left_out,
        going=(state.diverged == 0).int(),
        moments=max(learned.steps() for learned in state.optimizers.values()),
    )


def _unpack(state: TrainState, held: Held, count: int) -> None:
    """Write back what the kernel changed, as `count` steps of the optimisers."""
    _write(tensors(state.meta), held.values)
    for name, values in zip(MOMENTS, (held.first, held.second), strict=True):
        _write([_moment(learned, leaf, name) for learned, leaf in _learned(state)], values)
    for learned in state.optimizers.values():
        learned.took(count)


def _learned(state: TrainState) -> list[tuple[Learned, Tensor]]:
    return [(learned, leaf) for learned in state.optimizers.values() for leaf in learned.leaves()]


def _moment(learned: Learned, leaf: Tensor, name: str) -> Tensor:
    """A moment that Adam keeps of `leaf`, from zero as its first step has it; of other optimisers nothing is kept."""
    if "betas" not in learned.optimizer.defaults:
        return torch.zeros_like(leaf)
    kept: Params = learned.optimizer.state[leaf]
    if not kept:
        kept |= {"step": torch.zeros(()), **{moment: torch.zeros_like(leaf) for moment in MOMENTS}}
    return kept[name]


def _as_gradients(state: TrainState, rows: Tensor) -> Meta:
    """The gradients of the kernel under the keys of what is learned."""
    count = len(_learned(state)) - len(state.meta.params)
    learned = Meta(state.meta.params, dict(list(state.meta.rule.items())[:count]))
    found = iter(_split(rows, tensors(learned)))
    return Meta(*({key: next(found) for key in part} for part in learned))


def _rows(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.flatten(1) for value in values], dim=1)


def _split(rows: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.split(rows, [value[0].numel() for value in like], dim=1)
    return [part.view_as(value) for part, value in zip(parts, like, strict=True)]


def _write(values: Sequence[Tensor], rows: Tensor) -> None:
    for value, part in zip(values, _split(rows, values), strict=True):
        value.copy_(part)


def _optimizers(config: Config) -> list[str]:
    return [config.outer.optimizer, config.inner.alpha.optimizer or config.outer.optimizer]


def _shape(config: Config, groups: Sequence[int]) -> Shape:
    inner, alpha = config.inner, config.inner.alpha
    return Shape(
        dtype=getattr(torch, config.run.dtype),
        widths=[num_inputs(config), *config.model.hidden, 1],
        num_support=config.tasks.num_support,
        num_query=config.tasks.num_query,
        steps=inner.steps,
        activation=config.model.activation,
        loss=inner.loss,
        num_alphas=inner.steps if alpha.per_step else 1,
        per_parameter=alpha.per == "parameter",
        learned=alpha.learned,
        positive=alpha.sign == "positive",
        groups=groups,
    )
