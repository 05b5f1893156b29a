"""The native engine: outer steps by a compiled kernel for the CPU, on the state that all engines share.

The meta-parameters and the state of the optimisers are packed into rows before a call of many outer steps and unpacked
after it, so that a training may change engines at any step.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from maml_cli.config import Config, gradient_steps, inner_clip
from maml_cli.core import MetaParams, Points, TaskBatch, flatten, tensors, unflatten
from maml_cli.engines import kernel_build, kernel_call
from maml_cli.engines.kernel_call import CallOptions, KernelState
from maml_cli.engines.kernel_spec import kernel_spec
from maml_cli.engines.optimizers import optimizer_state
from maml_cli.engines.outer_step import finish_block, lr_scale, sample_weight_noise
from maml_cli.engines.state import Engine, Notify, StepResult, TrainState
from maml_cli.engines.task_blocks import BlockShare
from maml_cli.errors import CheckpointError, ConfigError
from maml_cli.experiment import Experiment, first_order_until, step_weights
from maml_cli.runtime import torch_threads


def native_unsupported() -> Iterator[str]:
    """Parts of the machine that the kernel needs and that are missing."""
    if kernel_build.compiler() is None:
        yield "systems without a C++ compiler"


def native_engine(config: Config, experiment: Experiment, *, notify: Notify, blocks: BlockShare) -> Engine:
    """Outer steps by the kernel for `config`; raises ConfigError if the kernel does not compile."""
    try:
        kernel = kernel_build.load_kernel(kernel_spec(config), notify=notify)
    except OSError as error:
        raise ConfigError(f"engine native: {error}; run.engine: eager needs no compiler") from None

    is_joint = config.outer.meta_gradient == "joint"

    @torch_threads(1)  # idle OpenMP threads would busy-wait on the cores that a kernel uses
    def engine(state: TrainState, count: int) -> StepResult:
        batches = _sample_in_threads(experiment, state, count, num_threads=config.run.threads)
        std, noise = config.outer.weight_noise, None
        if std:
            noise = sample_weight_noise(state.meta_params, state.noise_generators, std, num_steps=count)
        packed = pack_state(state)
        try:
            points = _all_as_query(batches) if is_joint else batches
            options = call_options(config, state.step, count, noise)
            result = kernel_call.run_kernel(kernel, points, options, packed)
        except MemoryError as error:
            raise ConfigError(f"engine native: {error}") from None
        unpack_state(state, packed)
        finish_block(config, state, result.completed, experiment.algorithm.meta_gradient, batches, noise)
        return StepResult(result.loss, result.grad_norm, _unpack_gradients(state, result.gradients))

    return engine


def _all_as_query(batch: TaskBatch) -> TaskBatch:
    """The points of joint training, which adapts to none: all of them are query points."""
    every = (torch.cat(pair, dim=-2) for pair in zip(batch.support, batch.query, strict=True))
    return TaskBatch(Points(*(value[..., :0, :] for value in batch.support)), Points(*every))


def _sample_in_threads(experiment: Experiment, state: TrainState, count: int, *, num_threads: int) -> TaskBatch:
    """The tasks of `count` outer steps, (N, R, B, ...), where each thread samples those of as many runs."""
    num_runs = len(state.generators)
    num_threads = min(num_threads, num_runs)
    if num_threads == 1:
        return experiment.sample(state.generators, num_steps=count)
    bounds = [num_runs * index // num_threads for index in range(num_threads + 1)]

    def sample(begin: int, end: int) -> TaskBatch:
        return experiment.sample(state.generators[begin:end], num_steps=count, runs=range(begin, end))

    with ThreadPoolExecutor(num_threads) as pool:
        return TaskBatch.concat_runs([*pool.map(sample, bounds[:-1], bounds[1:])])


def call_options(config: Config, step: int, count: int, noise: Tensor | None) -> CallOptions:
    """The schedules of `count` outer steps from `step` on, and the settings that all of them share."""
    outer, weights, first_order = config.outer, step_weights(config), first_order_until(config)
    base_rates, steps = (outer.lr, config.inner.alpha.lr or outer.lr), range(step, step + count)
    scales = [lr_scale(config, step) for step in steps]
    points = gradient_steps(config) + 1
    return CallOptions(
        step_weights=torch.tensor([weights(step)[-points:] for step in steps], dtype=torch.float64),
        second_order=torch.tensor([step >= first_order for step in steps], dtype=torch.int32),
        learning_rates=torch.tensor([[rate * scale for rate in base_rates] for scale in scales], dtype=torch.float64),
        noise=noise,
        clip_norm=outer.clip_norm,
        clip_task_norm=outer.clip_task_norm,
        inner_clip=inner_clip(config),
        inner_momentum=config.inner.momentum,
        inner_proximal=config.inner.proximal,
        alpha_scale=config.inner.alpha.scale,
        optimizers=_optimizers(config),
        num_threads=config.run.threads,
    )


def pack_state(state: TrainState) -> KernelState:
    """`state` as the arrays of the kernel, one row for each run; `loss_sum` and `skipped_tasks` are not copied."""
    first, second = _moments(state)
    return KernelState(
        values=flatten(_values(state)),
        first_moments=flatten(first),
        second_moments=flatten(second),
        loss_sum=state.loss_sum,
        skipped_tasks=state.skipped_tasks,
        active=(state.diverged == 0).int(),
        adam_steps=max(optimizer.steps_taken() for optimizer in state.optimizers.values()),
    )


def unpack_state(state: TrainState, packed: KernelState) -> None:
    """Write the learned tensors and the moments of the optimisers back to `state`."""
    first, second = _moments(state)
    _copy_rows(packed.values, _values(state))
    _copy_rows(packed.first_moments, first)
    _copy_rows(packed.second_moments, second)


def _copy_rows(rows: Tensor, targets: Sequence[Tensor]) -> None:
    for target, value in zip(targets, unflatten(rows, targets), strict=True):
        target.copy_(value)


def _values(state: TrainState) -> list[Tensor]:
    """All tensors of the meta-parameters, those that are not learned last."""
    learned = _learned(state)
    others = [tensor for tensor in tensors(state.meta_params) if not any(tensor is other for other in learned)]
    return learned + others


def _learned(state: TrainState) -> list[Tensor]:
    """The tensors that the outer loop learns: the parameters of the network, alphas and curvature."""
    return [tensor for optimizer in state.optimizers.values() for tensor in optimizer.tensors()]


def _moments(state: TrainState) -> tuple[list[Tensor], list[Tensor]]:
    """The first and second moments of every learned tensor.

    They are the optimisers' own tensors, and zeros that nobody reads for an optimiser without moments (SGD).
    """
    pairs = [
        optimizer_state(optimizer, tensor) or [torch.zeros_like(tensor), torch.zeros_like(tensor)]
        for optimizer in state.optimizers.values()
        for tensor in optimizer.tensors()
    ]
    for tensor, moments in zip(_learned(state), pairs, strict=True):
        if any(moment.shape != tensor.shape for moment in moments):
            raise CheckpointError("the moments of the outer optimiser have not the shapes of its tensors")
    return [first for first, _ in pairs], [second for _, second in pairs]


def _unpack_gradients(state: TrainState, rows: Tensor) -> MetaParams:
    """The kernel's gradients, (R, num_learned), under the keys of the tensors that the outer loop learns."""
    learned = _learned(state)
    gradients = {id(tensor): value for tensor, value in zip(learned, unflatten(rows, learned), strict=True)}
    by_section = (
        {key: gradients[id(tensor)] for key, tensor in section.items() if id(tensor) in gradients}
        for section in state.meta_params
    )
    return MetaParams(*by_section)


def _optimizers(config: Config) -> tuple[str, str]:
    """The outer optimisers of parameters and curvature, and of the alphas."""
    return config.outer.optimizer, config.inner.alpha.optimizer or config.outer.optimizer
