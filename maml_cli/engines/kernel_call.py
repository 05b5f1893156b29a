"""Calls of a kernel: its arrays, whose shapes and types are checked before their addresses leave Python."""

import ctypes
import math
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.config import KERNEL_OPTIMIZERS
from maml_cli.core import TaskBatch
from maml_cli.engines.kernel_arrays import DTYPES, MAX_THREADS, check_array, check_tensor, raise_refusal
from maml_cli.engines.kernel_build import Kernel
from maml_cli.engines.kernel_spec import KernelSpec


class CallArgs(ctypes.Structure):
    """The arguments of a call: the struct of the same name in kernel.cpp, which documents the fields."""

    _fields_ = (
        ("num_steps", ctypes.c_int64),
        ("num_runs", ctypes.c_int64),
        ("num_tasks", ctypes.c_int64),
        ("num_threads", ctypes.c_int64),
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("noise", ctypes.c_void_p),
        ("step_weights", ctypes.c_void_p),
        ("second_order", ctypes.c_void_p),
        ("learning_rates", ctypes.c_void_p),
        ("optimizers", ctypes.c_int32 * 2),
        ("clip_norm", ctypes.c_double),
        ("clip_task_norm", ctypes.c_double),
        ("inner_clip", ctypes.c_double),
        ("inner_momentum", ctypes.c_double),
        ("inner_proximal", ctypes.c_double),
        ("alpha_scale", ctypes.c_double),
        ("skip_tasks", ctypes.c_int32),
        ("values", ctypes.c_void_p),
        ("first_moments", ctypes.c_void_p),
        ("second_moments", ctypes.c_void_p),
        ("adam_steps", ctypes.c_int64),
        ("active", ctypes.c_void_p),
        ("loss_sum", ctypes.c_void_p),
        ("skipped_tasks", ctypes.c_void_p),
        ("loss", ctypes.c_void_p),
        ("grad_norm", ctypes.c_void_p),
        ("gradients", ctypes.c_void_p),
        ("completed", ctypes.c_void_p),
        ("lengths", ctypes.c_int64 * 16),
    )


ARRAYS = tuple(name for name, kind in CallArgs._fields_ if kind is ctypes.c_void_p)
"""The arrays of a call, in the order of their lengths."""


class CallOptions(NamedTuple):
    """The schedules and settings of the N outer steps of one call.

    step_weights: (N, inner_steps + 1), weights of the query losses before and after each inner step; float64.
    second_order: (N,), 0 for first-order steps; int32.
    learning_rates: (N, 2), outer learning rates of parameters and curvature, and of the alphas; float64.
    noise: (N, R, num_params), added to the parameters before the inner loop, or None; the kernel's dtype.
    clip_norm: largest norm of the meta-gradient of a run, or None.
    clip_task_norm: largest norm of the meta-gradient of a task, or None. With it, tasks whose loss or gradient is not
        finite are skipped; without it, they stop the run.
    inner_clip: largest norm or entry of a gradient of an inner step, by the kernel's clip; infinite without one.
    inner_momentum: of the inner steps; read by kernels with momentum only.
    inner_proximal: lambda of the proximal term; read by kernels with one only.
    alpha_scale: factor on every alpha.
    optimizers: of parameters and curvature, and of the alphas, both in KERNEL_OPTIMIZERS.
    num_threads: CPU threads.
    """

    step_weights: Tensor
    second_order: Tensor
    learning_rates: Tensor
    noise: Tensor | None
    clip_norm: float | None
    clip_task_norm: float | None
    inner_clip: float
    inner_momentum: float
    inner_proximal: float
    alpha_scale: float
    optimizers: tuple[str, str]
    num_threads: int


class KernelState(NamedTuple):
    """The state that a call updates in place, one row for each run.

    values: (R, num_values), the parameters of the network, alphas and curvature, those that are not learned last; the
        kernel's dtype, as the moments.
    first_moments, second_moments: (R, num_learned), of Adam; unchanged by other optimisers.
    loss_sum: (R,), the mean query loss of each completed step is added; float64.
    skipped_tasks: (R,), the number of skipped tasks is added; int64.
    active: (R,), 0 for runs that have diverged and are frozen; int32, not updated.
    adam_steps: steps of Adam before the call; not updated.
    """

    values: Tensor
    first_moments: Tensor
    second_moments: Tensor
    loss_sum: Tensor
    skipped_tasks: Tensor
    active: Tensor
    adam_steps: int


class CallResult(NamedTuple):
    """The results of a call; those of its last step are zero for runs that are not active.

    loss: (R,), mean query loss of the last step; float64.
    grad_norm: (R,), norm of the meta-gradient of the last step, before `clip_norm`; float64.
    gradients: (R, num_learned), meta-gradient of the last step, after `clip_norm`; the kernel's dtype.
    completed: (R,), outer steps before a loss or gradient was not finite; int64.
    """

    loss: Tensor
    grad_norm: Tensor
    gradients: Tensor
    completed: Tensor


class PackedCall(NamedTuple):
    """A call whose shapes and types were checked.

    args: the arguments of the kernel.
    arrays: the tensors whose addresses they hold, by name in the order of `ARRAYS`; the owners of the memory.
    result: those of them that are its results.
    """

    args: CallArgs
    arrays: dict[str, Tensor | None]
    result: CallResult


def run_kernel(kernel: Kernel, batch: TaskBatch, options: CallOptions, state: KernelState) -> CallResult:
    """Take the outer steps of `batch`, whose tensors are (N, R, B, K, 1), with one column for each input in those
    of x; mutates `state`, and only it.

    Raises ValueError as `pack_call` does. The kernel verifies the lengths again.
    """
    packed = pack_call(kernel.spec, batch, options, state)
    call_kernel(kernel, packed.args)
    return packed.result


def pack_call(spec: KernelSpec, batch: TaskBatch, options: CallOptions, state: KernelState) -> PackedCall:
    """The arguments of a call, with new tensors for its results.

    Raises ValueError if a count, shape, dtype, device or layout is not that of the kernel: it would read or write past
    the end of an array.
    """
    shape = tuple(batch.support.x.shape)
    if len(shape) != 5 or 0 in shape[:3]:
        raise ValueError(f"support.x is {shape}; the kernel takes (steps, runs, tasks, points, inputs), all positive")
    num_steps, num_runs, num_tasks = shape[:3]
    dtype = DTYPES[spec.dtype]
    for name, points, count in (("support", batch.support, spec.num_support), ("query", batch.query, spec.num_query)):
        for axis, tensor in points._asdict().items():
            shape = (num_steps, num_runs, num_tasks, count, spec.widths[0] if axis == "x" else 1)
            check_tensor(f"{name}.{axis}", tensor, dtype, shape)
    x, y = (torch.cat(pair, dim=-2).contiguous() for pair in zip(batch.support, batch.query, strict=True))
    result = CallResult(
        loss=torch.zeros(num_runs, dtype=torch.float64),
        grad_norm=torch.zeros(num_runs, dtype=torch.float64),
        gradients=torch.zeros(num_runs, spec.num_learned, dtype=dtype),
        completed=torch.zeros(num_runs, dtype=torch.int64),
    )
    _check_call(spec, options, state, num_steps, num_runs)
    named: dict[str, Tensor | None] = {
        **{"x": x, "y": y, "noise": options.noise, "step_weights": options.step_weights},
        **{"second_order": options.second_order, "learning_rates": options.learning_rates},
        **{name: value for name, value in state._asdict().items() if name != "adam_steps"},
        **result._asdict(),
    }
    arrays = {name: named[name] for name in ARRAYS}
    args = CallArgs(
        **{name: None if tensor is None else tensor.data_ptr() for name, tensor in arrays.items()},
        num_steps=num_steps,
        num_runs=num_runs,
        num_tasks=num_tasks,
        num_threads=options.num_threads,
        optimizers=tuple(map(_optimizer_index, options.optimizers)),
        clip_norm=math.inf if options.clip_norm is None else options.clip_norm,
        clip_task_norm=math.inf if options.clip_task_norm is None else options.clip_task_norm,
        inner_clip=options.inner_clip,
        inner_momentum=options.inner_momentum,
        inner_proximal=options.inner_proximal,
        alpha_scale=options.alpha_scale,
        skip_tasks=int(options.clip_task_norm is not None),
        adam_steps=state.adam_steps,
        lengths=tuple(0 if tensor is None else tensor.numel() for tensor in arrays.values()),
    )
    return PackedCall(args, arrays, result)


def call_kernel(kernel: Kernel, args: CallArgs) -> None:
    """Call the kernel with `args`; raises ValueError or MemoryError if it refuses them, and nothing is written."""
    take_outer_steps = kernel.library.take_outer_steps
    take_outer_steps.restype = ctypes.c_int64
    raise_refusal(take_outer_steps(ctypes.byref(args)), ARRAYS, num_threads=args.num_threads)


def _optimizer_index(name: str) -> int:
    """The number of an outer optimiser in the enumeration of kernel.cpp; ValueError if the kernel lacks it."""
    if name not in KERNEL_OPTIMIZERS:
        raise ValueError(f"the kernel lacks the outer optimiser {name}")
    return KERNEL_OPTIMIZERS.index(name)


def _check_call(spec: KernelSpec, options: CallOptions, state: KernelState, num_steps: int, num_runs: int) -> None:
    """Raise ValueError unless every tensor of `options` and `state` is an array that the kernel may use."""
    if not 1 <= options.num_threads <= MAX_THREADS:
        raise ValueError(f"num_threads is {options.num_threads}; the kernel takes 1 to {MAX_THREADS}")
    if not 0 <= state.adam_steps < 2**62:
        raise ValueError(f"adam_steps is {state.adam_steps}; the kernel takes 0 or more")
    dtype = DTYPES[spec.dtype]
    expected: list[tuple[str, Tensor, torch.dtype, tuple[int, ...]]] = [
        ("step_weights", options.step_weights, torch.float64, (num_steps, spec.inner_steps + 1)),
        ("second_order", options.second_order, torch.int32, (num_steps,)),
        ("learning_rates", options.learning_rates, torch.float64, (num_steps, 2)),
        ("values", state.values, dtype, (num_runs, spec.num_values)),
        ("first_moments", state.first_moments, dtype, (num_runs, spec.num_learned)),
        ("second_moments", state.second_moments, dtype, (num_runs, spec.num_learned)),
        ("loss_sum", state.loss_sum, torch.float64, (num_runs,)),
        ("skipped_tasks", state.skipped_tasks, torch.int64, (num_runs,)),
        ("active", state.active, torch.int32, (num_runs,)),
    ]
    if options.noise is not None:
        expected.append(("noise", options.noise, dtype, (num_steps, num_runs, spec.num_params)))
    for name, tensor, dtype, shape in expected:
        check_array(name, tensor, dtype, shape)
