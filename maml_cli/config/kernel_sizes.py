"""The work of the kernel for a config, and the memory that it needs."""

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from maml_cli.config.sizes import layer_widths, num_curvature_values

if TYPE_CHECKING:
    from maml_cli.config.schema import Config


def kernel_clip(config: "Config") -> str:
    """The clip of the gradients of inner steps, of `KERNEL_CLIPS`."""
    inner = config.inner
    return "norm" if inner.clip_norm is not None else "value" if inner.clip_value is not None else "none"


def inner_clip(config: "Config") -> float:
    """The largest norm or entry of a gradient of an inner step, by the clip; infinite without one."""
    return next((limit for limit in (config.inner.clip_norm, config.inner.clip_value) if limit), math.inf)


def gradient_steps(config: "Config") -> int:
    """Gradient steps of the inner loop in training: none where adapting is solving for the head alone."""
    return 0 if config.inner.is_closed_form else config.trained_steps


def kernel_points(config: "Config") -> tuple[int, int]:
    """Support and query points of a task in the kernel: in joint training, which adapts to none, all are the latter."""
    support, query = config.tasks.max_support, config.tasks.num_query
    return (0, support + query) if config.outer.meta_gradient == "joint" else (support, query)


def native_thread_bytes(config: "Config") -> int:
    """Bytes that one thread of the native engine works in: InnerStart and TaskWorkspace in kernel.cpp, unpadded."""
    inner, alpha, num_context = config.inner, config.inner.alpha, config.model.num_context
    inputs, *others = layer_widths(config)
    widths = [inputs - num_context, *others]
    num_params = sum((ins + 1) * outs for ins, outs in pairwise(widths))
    num_params += num_context + (num_context + 1) * widths[1] if num_context else 0  # and the bias that they act as
    hidden, transposed = sum(widths[1:-1]), sum(ins * outs for ins, outs in pairwise(widths[1:-1]))
    num_factors, inner_steps = num_curvature_values(config), gradient_steps(config)
    changes_gradient = kernel_clip(config) != "none" or num_factors > 0
    has_momentum, scales_by_rms, is_ridge = inner.momentum > 0, inner.optimizer == "adam", inner.head == "ridge"
    has_second_derivative = config.model.activation != "relu"
    alpha_steps = inner.steps if alpha.per_step else 1
    of_learned = alpha_steps if alpha.learned and alpha.per != "parameter" else 1
    num_support, num_query = kernel_points(config)
    support, query = (
        (5 if has_second_derivative else 2) * points * hidden + 2 * points for points in (num_support, num_query)
    )
    rows = num_support * (2 * hidden * (num_factors > 0) + widths[0] + 1)
    tangent = (3 if has_second_derivative else 2) * num_support * hidden + transposed
    start = (1 + alpha_steps) * num_params + transposed
    by_step = (2 + changes_gradient + has_momentum + 2 * scales_by_rms) * num_params + transposed + rows
    gradients = (2 + has_momentum + scales_by_rms + (inner.proximal > 0) + of_learned) * num_params
    numbers = start + max(1, inner_steps) * by_step + (inner_steps + is_ridge) * support
    numbers += query + tangent + rows + gradients + 2 * num_factors
    itemsize = 8 if config.run.dtype == "float64" else 4
    if not is_ridge:
        return numbers * itemsize
    size = widths[-2] + 1
    solution = 2 * num_support * size + min(num_support, size) ** 2 + 5 * size + num_support  # float64, with penalties
    return (numbers + (inner_steps + 1) * num_params) * itemsize + ((inner_steps + 1) * solution + 2 * size) * 8
