"""The network: a multilayer perceptron as a pure function of a dictionary of tensors.

Shapes: weights are (..., in, out), biases (..., 1, out), points (..., K, features). Leading axes are batches
(runs, tasks). Keys are named by role: `hidden0.w`, `hidden0.b`, ..., `head.w`, `head.b`; and `context`, (..., 1, C).
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor

Params = dict[str, Tensor]
Activation = Callable[[Tensor], Tensor]
ActivationDerivatives = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""(z, f(z)) -> f'(z), f''(z); None where that is zero."""
Predict = Callable[[Params, Tensor], Tensor]

CONTEXT = "context"

ACTIVATIONS: dict[str, Activation] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "softplus": torch.nn.functional.softplus,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
}


def _gelu_derivatives(z: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    density = (-z * z / 2).exp() / math.sqrt(2 * math.pi)
    return (1 + (z / math.sqrt(2)).erf()) / 2 + z * density, density * (2 - z * z)


def _silu_derivatives(z: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    part = z.sigmoid()
    return part + value * (1 - part), part * (1 - part) * (2 + z * (1 - 2 * part))


def _softplus_derivatives(z: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    part = z.sigmoid()
    return part, part * (1 - part)


ACTIVATION_DERIVATIVES: dict[str, ActivationDerivatives] = {
    "relu": lambda z, value: (value.sign(), None),
    "tanh": lambda z, value: (1 - value * value, -2 * value * (1 - value * value)),
    "silu": _silu_derivatives,
    "gelu": _gelu_derivatives,
    "softplus": _softplus_derivatives,
    "sigmoid": lambda z, value: (value * (1 - value), value * (1 - value) * (1 - 2 * value)),
    "sin": lambda z, value: (z.cos(), -value),
}


def layer_names(num_hidden: int) -> list[str]:
    """The names of the layers, inputs first: `hidden0`, `hidden1`, ..., `head`."""
    return [*(f"hidden{layer}" for layer in range(num_hidden)), "head"]


def layer_sizes(hidden: Sequence[int], *, num_inputs: int = 1, num_outputs: int = 1) -> list[int]:
    """The widths between the layers, inputs first and outputs last."""
    return [num_inputs, *hidden, num_outputs]


def mlp(params: Params, x: Tensor, *, activation: Activation) -> Tensor:
    """The network's output (..., K, out) at the points `x` (..., K, in).

    A `context` among the parameters, (..., 1, C), is C more inputs, the same at every point.
    """
    if CONTEXT in params:
        x = torch.cat([x, params[CONTEXT].expand(*x.shape[:-1], -1)], dim=-1)
    num_hidden = sum(key.endswith(".w") for key in params) - 1
    for layer in range(num_hidden):
        x = activation(_matmul(x, params[f"hidden{layer}.w"]) + params[f"hidden{layer}.b"])
    return _matmul(x, params["head.w"]) + params["head.b"]


def _matmul(x: Tensor, weight: Tensor) -> Tensor:
    """x W, by broadcasting where x is one feature: the same numbers, and no matrices to handle."""
    return x * weight if x.shape[-1] == 1 else x @ weight


def init_mlp(
    generator: Generator,
    *,
    hidden: Sequence[int],
    init: str,
    gain: float = 1.0,
    batch: Sequence[int] = (),
    num_inputs: int = 1,
    num_outputs: int = 1,
) -> Params:
    """Initial parameters, drawn in float64 on the CPU, independently along the leading axes `batch`.

    `gain` is a factor on the weights, not on the biases.
    """
    sizes, names = layer_sizes(hidden, num_inputs=num_inputs, num_outputs=num_outputs), layer_names(len(hidden))
    params = {}
    for name, (fan_in, fan_out) in zip(names, pairwise(sizes), strict=True):
        params[f"{name}.w"] = gain * INITIALIZERS[init](generator, (*batch, fan_in, fan_out))
        if init == "torch":
            params[f"{name}.b"] = _uniform(generator, (*batch, 1, fan_out), 1 / math.sqrt(fan_in))
        else:
            params[f"{name}.b"] = torch.zeros(*batch, 1, fan_out, dtype=torch.float64)
    return params


def _uniform(generator: Generator, shape: Sequence[int], limit: float) -> Tensor:
    return (2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1) * limit


def _normal(generator: Generator, shape: Sequence[int], std: float) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * std


def _truncated_normal(generator: Generator, shape: Sequence[int], std: float) -> Tensor:
    values = torch.empty(*shape, dtype=torch.float64)
    return torch.nn.init.trunc_normal_(values, 0.0, std, -2 * std, 2 * std, generator=generator)


Initializer = Callable[[Generator, Sequence[int]], Tensor]

# Weights of shape (..., in, out); biases start at zero, except for "torch", where they are drawn as well.
INITIALIZERS: dict[str, Initializer] = {
    "uniform": lambda g, shape: _uniform(g, shape, 1 / math.sqrt(shape[-2])),
    "torch": lambda g, shape: _uniform(g, shape, 1 / math.sqrt(shape[-2])),
    "lecun_normal": lambda g, shape: _normal(g, shape, 1 / math.sqrt(shape[-2])),
    "he_normal": lambda g, shape: _normal(g, shape, math.sqrt(2 / shape[-2])),
    "glorot_uniform": lambda g, shape: _uniform(g, shape, math.sqrt(6 / (shape[-2] + shape[-1]))),
    "truncated_normal": lambda g, shape: _truncated_normal(g, shape, 0.01),
}
