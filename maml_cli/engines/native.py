"""The native engine: outer steps by the kernel for the CPU, on the tensors that every engine shares.

A run may change engines at any step: what is learned, and the state of the optimisers, is packed before a call of many
outer steps and unpacked after it.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from maml_cli.config import Config
from maml_cli.core import MetaParams, Params, TaskBatch, tensors
from maml_cli.engines import kernel_build
from maml_cli.engines.kernel_build import CallOptions, KernelSpec, KernelState
from maml_cli.engines.optimizers import OuterOptimizer
from maml_cli.engines.outer_step import SCHEDULES, finish_block, sample_weight_noise
from maml_cli.engines.state import Engine, Notify, StepResult, TrainState
from maml_cli.errors import ConfigError
from maml_cli.experiment import Experiment, first_order_until, num_inputs, param_keys, step_weights
from maml_cli.runtime import single_threaded_torch

ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")
MAX_TASK_BYTES = 2**26
"""Bytes that one task may take: beyond the caches, a batched product is as fast."""


def native_unsupported(config: Config, device: torch.device) -> Iterator[str]:
    """What the kernel cannot do, besides what is not written out."""
    if device.type != "cpu":
        yield f"device {device.type}"
    if config.inner.curvature != "none":
        yield f"inner.curvature = {config.inner.curvature}"
    if config.model.oracle:
        yield "model.oracle = true"
    if config.model.activation not in kernel_build.ACTIVATIONS:
        yield f"model.activation = {config.model.activation}"
    for optimizer in _optimizers(config):
        if optimizer not in kernel_build.OPTIMIZERS:
            yield f"outer optimiser {optimizer}"
    if _kernel_spec(config, [-1]).memory() > MAX_TASK_BYTES:
        yield "tasks larger than the cache"
    if kernel_build.compiler() is None:
        yield "systems without a C++ compiler"


def native_engine(config: Config, experiment: Experiment, *, notify: Notify) -> Engine:
    """Outer steps by the kernel for `config`; raises ConfigError if it does not compile."""
    names = [*dict.fromkeys(experiment.alpha_groups.values())]
    groups = [
        names.index(experiment.alpha_groups[key]) if key in experiment.alpha_groups else -1
        for key in param_keys(config)
    ]
    try:
        library = kernel_build.load_kernel(_kernel_spec(config, groups), say=notify)
    except OSError as error:
        raise ConfigError(f"run.engine: native cannot do this: {error}; eager needs no compiler") from None

    @single_threaded_torch()
    def advance(state: TrainState, count: int) -> StepResult:
        batches = _sample_in_threads(experiment, state, count, num_threads=config.run.threads)
        std, noise = config.outer.weight_noise, None
        if std:
            noise = sample_weight_noise(state.meta_params, state.noise_generators, std, num_steps=count)
        held = _pack_state(state)
        report = kernel_build.run_kernel(library, batches, _call_options(config, state.step, count, noise), held)
        _unpack_state(state, held)
        finish_block(config, state, report.completed, experiment.algorithm.meta_gradient, batches, noise)
        return StepResult(report.loss, report.norm, _as_gradients(state, report.gradients))

    return advance


def _sample_in_threads(experiment: Experiment, state: TrainState, count: int, *, num_threads: int) -> TaskBatch:
    """The tasks of `count` steps, those of each run by a thread."""
    if min(num_threads, len(state.generators)) == 1:
        return experiment.sample(state.generators, num_steps=count)
    with ThreadPoolExecutor(num_threads) as pool:
        runs = [*pool.map(lambda stream: experiment.sample([stream], num_steps=count), state.generators)]
    return TaskBatch.concat_runs(runs)


def _call_options(config: Config, step: int, count: int, noise: Tensor | None) -> CallOptions:
    outer, weights, first_order = config.outer, step_weights(config), first_order_until(config)
    rates, steps = (outer.lr, config.inner.alpha.lr or outer.lr), range(step, step + count)
    scales = [SCHEDULES[outer.schedule](step / outer.steps) for step in steps]
    return CallOptions(
        weights=torch.tensor([weights(step) for step in steps], dtype=torch.float64),
        second_order=torch.tensor([step >= first_order for step in steps], dtype=torch.int32),
        rates=torch.tensor([[rate * scale for rate in rates] for scale in scales], dtype=torch.float64),
        noise=noise,
        clip_norm=outer.clip_norm,
        clip_task_norm=outer.clip_task_norm,
        optimizers=_optimizers(config),
        num_threads=config.run.threads,
    )


def _pack_state(state: TrainState) -> KernelState:
    """What the kernel reads, one row for each run; the first tensors of a Meta are those that are learned."""
    held = _rows(tensors(state.meta_params))
    first, second = (
        _rows([_moment(learned, leaf, name) for learned, leaf in _learned(state)]) for name in ADAM_MOMENTS
    )
    return KernelState(
        values=held,
        first_moments=first,
        second_moments=second,
        loss_sum=state.loss_sum,
        skipped_tasks=state.skipped_tasks,
        active=(state.diverged == 0).int(),
        adam_steps=max(learned.steps_taken() for learned in state.optimizers.values()),
    )


def _unpack_state(state: TrainState, held: KernelState) -> None:
    """Write back the learned tensors and the state of the optimisers."""
    _write(tensors(state.meta_params), held.values)
    for name, values in zip(ADAM_MOMENTS, (held.first_moments, held.second_moments), strict=True):
        _write([_moment(learned, leaf, name) for learned, leaf in _learned(state)], values)


def _learned(state: TrainState) -> list[tuple[OuterOptimizer, Tensor]]:
    return [(learned, leaf) for learned in state.optimizers.values() for leaf in learned.tensors()]


def _moment(learned: OuterOptimizer, leaf: Tensor, name: str) -> Tensor:
    """A moment that Adam keeps of `leaf`, from zero as its first step has it; of other optimisers nothing is kept."""
    if "betas" not in learned.optimizer.defaults:
        return torch.zeros_like(leaf)
    kept: Params = learned.optimizer.state[leaf]
    if not kept:
        kept |= {"step": torch.zeros(()), **{moment: torch.zeros_like(leaf) for moment in ADAM_MOMENTS}}
    return kept[name]


def _as_gradients(state: TrainState, rows: Tensor) -> MetaParams:
    """The gradients of the kernel under the keys of what is learned."""
    count = len(_learned(state)) - len(state.meta_params.params)
    learned = MetaParams(state.meta_params.params, dict(list(state.meta_params.rule_params.items())[:count]))
    found = iter(_split(rows, tensors(learned)))
    return MetaParams(*({key: next(found) for key in part} for part in learned))


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


def _kernel_spec(config: Config, groups: Sequence[int]) -> KernelSpec:
    inner, alpha = config.inner, config.inner.alpha
    return KernelSpec(
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
