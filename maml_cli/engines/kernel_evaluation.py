"""Evaluations by a compiled kernel: the errors of adapted networks, for learners that it supports."""

import ctypes
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.config import Config, inner_clip
from maml_cli.core import MetaParams, Points, extrapolation, flatten, tensors
from maml_cli.engines import kernel_build
from maml_cli.engines.evaluation_spec import evaluation_spec, has_evaluation_kernel
from maml_cli.engines.kernel_arrays import DTYPES, check_array, raise_refusal
from maml_cli.engines.kernel_build import Kernel
from maml_cli.engines.kernel_spec import KernelSpec


class EvaluationArgs(ctypes.Structure):
    """The arguments of a call: the struct of the same name in evaluation.cpp, which documents the fields."""

    _fields_ = (
        ("num_runs", ctypes.c_int64),
        ("num_tasks", ctypes.c_int64),
        ("num_starts", ctypes.c_int64),
        ("num_steps", ctypes.c_int64),
        ("num_points", ctypes.c_int64),
        ("num_groups", ctypes.c_int64),
        ("num_predictions", ctypes.c_int64),
        ("num_threads", ctypes.c_int64),
        ("trained_steps", ctypes.c_int64),
        ("longest", ctypes.c_double),
        ("inner_clip", ctypes.c_double),
        ("inner_momentum", ctypes.c_double),
        ("inner_proximal", ctypes.c_double),
        ("alpha_scale", ctypes.c_double),
        ("unit", ctypes.c_double),
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("points", ctypes.c_void_p),
        ("targets", ctypes.c_void_p),
        ("groups", ctypes.c_void_p),
        ("params", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("factors", ctypes.c_void_p),
        ("errors", ctypes.c_void_p),
        ("predictions", ctypes.c_void_p),
        ("lengths", ctypes.c_int64 * 10),
    )


ARRAYS = tuple(name for name, kind in EvaluationArgs._fields_ if kind is ctypes.c_void_p)
"""The arrays of a call, in the order of their lengths."""


class Adapted(NamedTuple):
    """The results of a call, for R runs of B tasks.

    errors: (S + 1, G, R, B, 2), the mean squared and the mean absolute error of each task on the points of each group
        after 0, 1, ..., S inner steps.
    predictions: (S + 1, R, B, L, 1), at the first L points of each task, in the unit of the network.
    """

    errors: Tensor
    predictions: Tensor


class AdaptedPoints(NamedTuple):
    """The points of R runs of B tasks in the units of the network.

    support: the points to adapt to, (R, B, K, D).
    groups: the points to predict, of which each group has errors of its own, (R, B, M, D) for a group of M.
    """

    support: Points
    groups: Sequence[Points]


class EvaluationOptions(NamedTuple):
    """The settings of a call.

    steps: S, inner steps.
    unit: of the network in that of the tasks, whose errors are computed.
    num_predictions: L, the points whose predictions are wanted, the first of the groups.
    num_threads: CPU threads; their number changes no byte.
    """

    steps: int
    unit: float = 1.0
    num_predictions: int = 0
    num_threads: int = 1


class PackedEvaluation(NamedTuple):
    """A call whose shapes and types were checked.

    args: the arguments of the kernel.
    arrays: the tensors whose addresses they hold, by name; the owners of the memory.
    """

    args: EvaluationArgs
    arrays: dict[str, Tensor]


class EvaluationKernel(NamedTuple):
    """The kernel that adapts the learner of `config` to some K points."""

    kernel: Kernel
    config: Config

    def adapt(self, meta_params: MetaParams, points: AdaptedPoints, options: EvaluationOptions) -> Adapted:
        """The errors of the networks that start from `meta_params` after 0, 1, ..., S inner steps.

        meta_params: (R, P, ...), where the network of a run starts all of its tasks, P = 1, or each task has a network
            of its own, P = B; of the rule the first of each run counts.

        Raises ValueError if a shape or a dtype is not that of the kernel, MemoryError if it lacks memory.
        """
        args, arrays = pack_evaluation(self.kernel.spec, self.config, meta_params, points, options)
        call_evaluation(self.kernel, args)
        return Adapted(arrays["errors"], arrays["predictions"].unsqueeze(-1))


def pack_evaluation(
    spec: KernelSpec, config: Config, meta_params: MetaParams, points: AdaptedPoints, options: EvaluationOptions
) -> PackedEvaluation:
    """The arguments of `EvaluationKernel.adapt`, with new tensors for its results."""
    inner, dtype, (runs, tasks) = config.inner, DTYPES[spec.dtype], points.support.x.shape[:2]
    sizes = [group.x.shape[2] for group in points.groups]
    factors, longest = _extrapolation(config, options.steps)
    params = flatten([*meta_params.params.values()], batch_dims=2).contiguous()
    inputs, num_steps = spec.widths[0], options.steps + 1
    of_points: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "x": (points.support.x.contiguous(), (runs, tasks, spec.num_support, inputs)),
        "y": (points.support.y.contiguous(), (runs, tasks, spec.num_support, 1)),
        "points": (torch.cat([group.x for group in points.groups], dim=2), (runs, tasks, sum(sizes), inputs)),
        "targets": (torch.cat([group.y for group in points.groups], dim=2), (runs, tasks, sum(sizes), 1)),
        "params": (params, (runs, params.shape[1], spec.num_params)),
        "values": (flatten([value[:, 0] for value in tensors(meta_params)]), (runs, spec.num_values)),
    }
    for name, (tensor, shape) in of_points.items():
        check_array(name, tensor, dtype, shape)
    arrays = {name: tensor for name, (tensor, _) in of_points.items()} | {
        "groups": torch.tensor(sizes),
        "factors": torch.tensor(factors, dtype=torch.float64),
        "errors": torch.empty(num_steps, len(sizes), runs, tasks, 2, dtype=dtype),
        "predictions": torch.empty(num_steps, runs, tasks, options.num_predictions, dtype=dtype),
    }
    args = EvaluationArgs(
        **{name: tensor.data_ptr() for name, tensor in arrays.items()},
        num_runs=runs,
        num_tasks=tasks,
        num_starts=params.shape[1],
        num_steps=options.steps,
        num_points=sum(sizes),
        num_groups=len(sizes),
        num_predictions=options.num_predictions,
        num_threads=options.num_threads,
        trained_steps=inner.steps if inner.has_per_step_params else max(1, options.steps),
        longest=longest,
        inner_clip=inner_clip(config),
        inner_momentum=inner.momentum,
        inner_proximal=inner.proximal,
        alpha_scale=inner.alpha.scale,
        unit=options.unit,
        lengths=tuple(arrays[name].numel() for name in ARRAYS),
    )
    return PackedEvaluation(args, arrays)


def call_evaluation(kernel: Kernel, args: EvaluationArgs) -> None:
    """Call the kernel with `args`; raises ValueError or MemoryError if it refuses them, and nothing is written."""
    compute_errors = kernel.library.compute_errors
    compute_errors.restype = ctypes.c_int64
    raise_refusal(compute_errors(ctypes.byref(args)), ARRAYS, num_threads=args.num_threads)


_loaded: dict[str, Kernel] = {}
"""Kernels by compiler and constants: a training evaluates hundreds of times."""


def evaluation_kernel(config: Config, *, num_shots: int, steps: int) -> EvaluationKernel | None:
    """The kernel for evaluations after up to `steps` inner steps at K = `num_shots` points.

    None without a compiler, and for a learner that it does not support. Raises OSError if it does not compile,
    FileError if the cache cannot be written.
    """
    path = kernel_build.compiler()
    if path is None or not has_evaluation_kernel(config, num_shots=num_shots, steps=steps):
        return None
    spec = evaluation_spec(config, num_shots)
    key = f"{path} {spec}"
    if key not in _loaded:
        _loaded[key] = kernel_build.load_kernel(spec, kernel_build.EVALUATION_SOURCE)
    return EvaluationKernel(_loaded[key], config)


def _extrapolation(config: Config, steps: int) -> tuple[list[float], float]:
    """The factor on the update of each of `steps` inner steps, and the largest length of those past the last trained
    one, as a multiple of the length of the update before."""
    name = config.inner.alpha.after_last_step
    if not config.inner.has_per_step_params or name is None:
        return [1.0] * steps, math.inf
    past = extrapolation.EXTRAPOLATIONS[name]
    trained = min(steps, config.inner.steps)
    return [1.0] * trained + [past.factor(step + 1) for step in range(steps - trained)], past.longest
