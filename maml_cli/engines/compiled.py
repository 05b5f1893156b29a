"""The compiled engine: whole outer steps, both derivatives and the update, as one graph for torch.compile.

Outer steps write their results in place, to buffers whose addresses never change, and nothing is copied to the host
before the last step of a call.

Private parts of PyTorch, `torch.fx.experimental.proxy_tensor.make_fx`, `torch._dynamo.mark_static_address` and
`torch._dynamo.exc.TorchDynamoException`, are used here only, and were verified on torch 2.13.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from maml_cli.config import Config
from maml_cli.core import MetaParams, tensors
from maml_cli.engines import kernel_build
from maml_cli.engines.eager import adjoint_average
from maml_cli.engines.optimizers import bias_corrections, optimizer_state
from maml_cli.engines.outer_step import finish_block, lr_scale, sample_weight_noise
from maml_cli.engines.state import Engine, Notify, StepResult, TrainState
from maml_cli.engines.task_blocks import BlockShare
from maml_cli.engines.traced_step import Buffers, LearnedTensor, RunCounters, StepInputs, TracedStep, traced_step
from maml_cli.errors import ConfigError
from maml_cli.experiment import Experiment, first_order_until


def compiled_unsupported(device: torch.device) -> Iterator[str]:
    """Parts of the machine that compiling for `device` needs and that are missing."""
    if device.type == "cpu" and kernel_build.compiler() is None:
        yield "systems without a C++ compiler"


def compiled_engine(config: Config, experiment: Experiment, *, notify: Notify, blocks: BlockShare) -> Engine:
    """Outer steps compiled once for first and once for second order, as far as `config` has both.

    PyTorch keeps compiled code on disk for later processes. On a GPU each step is one CUDA graph.
    """
    average, std = adjoint_average(config, experiment), config.outer.weight_noise
    compiled_steps: dict[bool, Callable[[Buffers, StepInputs], None]] = {}
    previous: Buffers | None = None

    def engine(state: TrainState, count: int) -> StepResult:
        nonlocal previous
        batches = experiment.sample(state.generators, num_steps=count)
        noise = sample_weight_noise(state.meta_params, state.noise_generators, std, num_steps=count) if std else None
        learned, rates = _learned_tensors(state), _rates(config, state, count)
        buffers = previous = _buffers(state, learned, previous)
        learned_ids = {id(value) for value in buffers.values}
        not_learned = [value for value in tensors(state.meta_params) if id(value) not in learned_ids]
        for index, batch in enumerate(batches.iter_steps()):
            inputs = StepInputs(batch, rates[index], not_learned, None if noise is None else noise[index])
            is_first_order = state.step + index < first_order_until(config)
            if is_first_order not in compiled_steps:
                notify("compiling the outer step; this can take minutes ...")
                step = traced_step(config, state, learned, average, step=state.step + index)
                compiled_steps[is_first_order] = _compile(step, buffers, inputs)
            with torch.no_grad(), _report_failed_compilation():
                compiled_steps[is_first_order](buffers, inputs)
        counters = RunCounters(*(value.to("cpu", copy=True) for value in buffers.counters))
        state.loss_sum, state.skipped_tasks = counters.loss_sum, counters.skipped_tasks
        finish_block(config, state, counters.completed, experiment.algorithm.meta_gradient, batches, noise)
        return StepResult(counters.loss, counters.norm, _as_meta_params(learned, buffers.gradients))

    return engine


@contextlib.contextmanager
def _report_failed_compilation() -> Iterator[None]:
    """Raises ConfigError where torch.compile fails on a graph, which it does at its first call, before computing."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
            raise
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"engine compiled: torch.compile fails on this config ({reason}); use run.engine: eager"
        ) from None


def _compile(step: TracedStep, buffers: Buffers, inputs: StepInputs) -> Callable[[Buffers, StepInputs], None]:
    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import, and seldom needed

    traced = make_fx(step)(buffers, inputs)

    def step_in_place(buffers: Buffers, inputs: StepInputs) -> None:
        for section, new_section in zip(buffers, traced(buffers, inputs), strict=True):
            for buffer, value in zip(section, new_section, strict=True):
                buffer.copy_(value)

    on_gpu = inputs.rates.device.type == "cuda"
    if on_gpu:  # CUDA graphs write to fixed addresses
        for section in buffers:
            for buffer in section:
                torch._dynamo.mark_static_address(buffer)
    return torch.compile(step_in_place, fullgraph=True, mode="reduce-overhead" if on_gpu else None)


def _learned_tensors(state: TrainState) -> list[LearnedTensor]:
    locations = {
        id(value): (index, key) for index, section in enumerate(state.meta_params) for key, value in section.items()
    }
    return [
        LearnedTensor(*locations[id(tensor)], index, outer.kind.formula, len(outer.kind.state_names))
        for index, outer in enumerate(state.optimizers.values())
        for tensor in outer.tensors()
    ]


def _buffers(state: TrainState, learned: Sequence[LearnedTensor], previous: Buffers | None) -> Buffers:
    """Buffers of a call. Reused from the previous call on the same state: a CUDA graph needs fixed addresses."""
    optimizers = [*state.optimizers.values()]
    states = [
        state_tensor
        for tensor in learned
        for state_tensor in optimizer_state(optimizers[tensor.optimizer], state.meta_params[tensor.section][tensor.key])
    ]
    values = [state.meta_params[tensor.section][tensor.key] for tensor in learned]
    zero = torch.zeros_like(state.loss_sum)
    counters = RunCounters(state.diverged == 0, zero.long(), zero, zero, state.loss_sum, state.skipped_tasks)
    if previous is not None and [*map(id, [*values, *states])] == [*map(id, [*previous.values, *previous.states])]:
        for buffer, value in zip(previous.counters, counters, strict=True):
            buffer.copy_(value)
        return previous
    return Buffers(
        values,
        states,
        [torch.zeros_like(value) for value in values],
        RunCounters(*(value.to(values[0].device, copy=True) for value in counters)),
    )


def _rates(config: Config, state: TrainState, count: int) -> Tensor:
    """Learning rate and bias corrections of each outer step and optimiser: (count, P, 3)."""
    taken = [(outer.base_lr, outer.steps_taken()) for outer in state.optimizers.values()]
    rates = [
        [bias_corrections(lr * lr_scale(config, state.step + index), steps + index + 1) for lr, steps in taken]
        for index in range(count)
    ]
    return torch.tensor(rates, dtype=torch.float64, device=next(iter(state.meta_params.params.values())).device)


def _as_meta_params(learned: Sequence[LearnedTensor], gradients: Sequence[Tensor]) -> MetaParams:
    result = MetaParams({}, {})
    for tensor, gradient in zip(learned, gradients, strict=True):
        result[tensor.section][tensor.key] = gradient.clone()
    return result
