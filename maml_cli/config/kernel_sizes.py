"""The work of the kernel for a config, and the memory that it needs."""

import math
from collections.abc import Sequence
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
    """Bytes that one thread of the native engine works in."""
    inner, alpha = config.inner, config.inner.alpha
    inputs, *others = layer_widths(config)
    return kernel_task_bytes(
        [inputs - config.model.num_context, *others],
        kernel_points(config),
        inner_steps=gradient_steps(config),
        alpha_steps=inner.steps if alpha.per_step else 1,
        shares_learned=alpha.learned and alpha.per != "parameter",
        num_factors=num_curvature_values(config),
        clipped=kernel_clip(config) != "none",
        momentum=inner.momentum > 0,
        scaled_by_rms=inner.optimizer == "adam",
        proximal=inner.proximal > 0,
        num_context=config.model.num_context,
        solved=inner.head == "ridge",
        curved=config.model.activation != "relu",
        itemsize=8 if config.run.dtype == "float64" else 4,
    )


def kernel_task_bytes(
    widths: Sequence[int],
    num_points: tuple[int, int],
    *,
    inner_steps: int,
    alpha_steps: int,
    shares_learned: bool,
    num_factors: int,
    clipped: bool,
    momentum: bool,
    scaled_by_rms: bool,
    proximal: bool,
    num_context: int,
    solved: bool,
    curved: bool,
    itemsize: int,
) -> int:
    """Bytes that one thread of the kernel works in: the arrays of InnerStart and TaskWorkspace in kernel.cpp, unpadded.

    widths: units of each layer. num_points: support and query points. alpha_steps: alphas of each group.
    shares_learned: whether several parameters share a learned alpha. num_factors: numbers in the factors of the
    curvatures. clipped: whether gradients of inner steps are clipped. momentum: whether inner steps have momentum.
    scaled_by_rms: whether they are those of Adam without momentum. proximal: whether their loss has a proximal term.
    num_context: context inputs. solved: whether the head is in closed form. curved: whether the activation has a
    second derivative. itemsize: bytes of a number.
    """
    num_params = sum((ins + 1) * outs for ins, outs in pairwise(widths))
    num_params += num_context + (num_context + 1) * widths[1] if num_context else 0  # and the bias that they act as
    hidden, transposed = sum(widths[1:-1]), sum(ins * outs for ins, outs in pairwise(widths[1:-1]))
    support, query = ((5 if curved else 2) * points * hidden + 2 * points for points in num_points)
    rows = num_points[0] * (2 * hidden * (num_factors > 0) + widths[0] + 1)
    tangent = (3 if curved else 2) * num_points[0] * hidden + transposed
    start = (1 + alpha_steps) * num_params + transposed
    by_step = (2 + (clipped or num_factors > 0) + momentum + 2 * scaled_by_rms) * num_params + transposed + rows
    gradients = (2 + momentum + scaled_by_rms + proximal + (alpha_steps if shares_learned else 1)) * num_params
    numbers = start + max(1, inner_steps) * by_step + (inner_steps + solved) * support
    numbers += query + tangent + rows + gradients + 2 * num_factors
    if not solved:
        return numbers * itemsize
    size, count = widths[-2] + 1, num_points[0]
    solution = 2 * count * size + min(count, size) ** 2 + 5 * size + count  # and its penalties; float64
    return (numbers + (inner_steps + 1) * num_params) * itemsize + ((inner_steps + 1) * solution + 2 * size) * 8
