"""The network: a multilayer perceptron as a pure function of a dictionary of tensors.

Shapes: weights are (..., in, out), biases (..., 1, out), points (..., K, features). Leading axes are batches
(runs, tasks). Keys are named by role: `hidden0.w`, `hidden0.b`, ..., `head.w`, `head.b`; and `context`, (..., 1, C).
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from maml_cli.core.tables import lookup

Params = dict[str, Tensor]
"""The parameters of a network, or their gradients or updates, by name."""

Activation = Callable[[Tensor], Tensor]
"""Pre-activations z -> f(z), elementwise."""

ActivationDerivatives = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""(z, f(z)) -> (f'(z), f''(z)); None for a second derivative that is zero everywhere."""

Predict = Callable[[Params, Tensor], Tensor]
"""(params, inputs (..., K, in)) -> predictions (..., K, out)."""

CONTEXT = "context"
"""The key of the context inputs (CAVIA)."""

ACTIVATIONS: dict[str, Activation] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "softplus": torch.nn.functional.softplus,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
}
"""Values of `model.activation`."""


def _gelu_derivatives(z: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    density = (-z * z / 2).exp() / math.sqrt(2 * math.pi)
    return (1 + (z / math.sqrt(2)).erf()) / 2 + z * density, density * (2 - z * z)


def _silu_derivatives(z: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    sigmoid = z.sigmoid()
    return sigmoid + value * (1 - sigmoid), sigmoid * (1 - sigmoid) * (2 + z * (1 - 2 * sigmoid))


def _softplus_derivatives(z: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    sigmoid = z.sigmoid()
    return sigmoid, sigmoid * (1 - sigmoid)


ACTIVATION_DERIVATIVES: dict[str, ActivationDerivatives] = {
    "relu": lambda z, value: (value.sign(), None),
    "tanh": lambda z, value: (1 - value * value, -2 * value * (1 - value * value)),
    "silu": _silu_derivatives,
    "gelu": _gelu_derivatives,
    "softplus": _softplus_derivatives,
    "sigmoid": lambda z, value: (value * (1 - value), value * (1 - value) * (1 - 2 * value)),
    "sin": lambda z, value: (z.cos(), -value),
}
"""The derivatives of `ACTIVATIONS`."""


def layer_names(num_hidden: int) -> list[str]:
    """The names of the layers, inputs first.

    >>> layer_names(2)
    ['hidden0', 'hidden1', 'head']
    """
    return [*(f"hidden{layer}" for layer in range(num_hidden)), "head"]


def layer_sizes(hidden: Sequence[int], *, num_inputs: int = 1, num_outputs: int = 1) -> list[int]:
    """The number of features between the layers, inputs first and outputs last.

    >>> layer_sizes([40, 30])
    [1, 40, 30, 1]
    """
    return [num_inputs, *hidden, num_outputs]


def param_shapes(sizes: Sequence[int]) -> dict[str, tuple[int, int]]:
    """The shapes of the parameters, without batches, of a network with `sizes` features between its layers.

    >>> param_shapes([1, 40, 1])
    {'hidden0.w': (1, 40), 'hidden0.b': (1, 40), 'head.w': (40, 1), 'head.b': (1, 1)}
    """
    shapes: dict[str, tuple[int, int]] = {}
    for name, (fan_in, fan_out) in zip(layer_names(len(sizes) - 2), pairwise(sizes), strict=True):
        shapes |= {f"{name}.w": (fan_in, fan_out), f"{name}.b": (1, fan_out)}
    return shapes


def mlp(params: Params, x: Tensor, *, activation: Activation) -> Tensor:
    """The network's output (..., K, out) at the points `x` (..., K, in)."""
    return _matmul(mlp_features(params, x, activation=activation), params["head.w"]) + params["head.b"]


def mlp_features(params: Params, x: Tensor, *, activation: Activation) -> Tensor:
    """The values of the last hidden layer (..., K, H) at the points `x` (..., K, in); without hidden layers the inputs.

    A `context` among the parameters, (..., 1, C), is concatenated to the inputs of every point.
    """
    if CONTEXT in params:
        x = torch.cat([x, params[CONTEXT].expand(*x.shape[:-1], -1)], dim=-1)
    num_hidden = sum(key.endswith(".w") for key in params) - 1
    for layer in range(num_hidden):
        x = activation(_matmul(x, params[f"hidden{layer}.w"]) + params[f"hidden{layer}.b"])
    return x


def _matmul(x: Tensor, weight: Tensor) -> Tensor:
    """x W; by broadcasting where x has one feature, which is faster and gives the same numbers."""
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
    """Initial parameters: weights (*batch, in, out), biases (*batch, 1, out).

    Drawn from `generator` in float64 on the CPU, layer by layer, independently along the axes `batch`. `init` names a
    row of `INITIALIZERS`; `gain` is a factor on the weights, not on the biases.
    """
    sizes, names = layer_sizes(hidden, num_inputs=num_inputs, num_outputs=num_outputs), layer_names(len(hidden))
    initializer = lookup(INITIALIZERS, init, "model.init", "core.network.INITIALIZERS")
    params = {}
    for name, (fan_in, fan_out) in zip(names, pairwise(sizes), strict=True):
        shape = (*batch, fan_in, fan_out)
        params[f"{name}.w"] = gain * initializer.weight(generator, shape)
        params[f"{name}.b"] = initializer.bias(generator, shape)
    return params


def _uniform(generator: Generator, shape: Sequence[int], limit: float) -> Tensor:
    return (2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1) * limit


def _normal(generator: Generator, shape: Sequence[int], std: float) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * std


def _truncated_normal(generator: Generator, shape: Sequence[int], std: float) -> Tensor:
    values = torch.empty(*shape, dtype=torch.float64)
    return torch.nn.init.trunc_normal_(values, 0.0, std, -2 * std, 2 * std, generator=generator)


def _zero_bias(generator: Generator, shape: Sequence[int]) -> Tensor:
    return torch.zeros(*shape[:-2], 1, shape[-1], dtype=torch.float64)


def _uniform_bias(generator: Generator, shape: Sequence[int]) -> Tensor:
    return _uniform(generator, (*shape[:-2], 1, shape[-1]), 1 / math.sqrt(shape[-2]))


Initialize = Callable[[Generator, Sequence[int]], Tensor]
"""(generator, shape (*batch, in, out) of a layer's weights) -> initial values."""


class Initializer(NamedTuple):
    """The initial distribution of a layer.

    weight: weights, (*batch, in, out).
    bias: biases, (*batch, 1, out); zero by default.
    """

    weight: Initialize
    bias: Initialize = _zero_bias


INITIALIZERS: dict[str, Initializer] = {
    "uniform": Initializer(lambda g, shape: _uniform(g, shape, 1 / math.sqrt(shape[-2]))),
    "torch": Initializer(lambda g, shape: _uniform(g, shape, 1 / math.sqrt(shape[-2])), bias=_uniform_bias),
    "lecun_normal": Initializer(lambda g, shape: _normal(g, shape, 1 / math.sqrt(shape[-2]))),
    "he_normal": Initializer(lambda g, shape: _normal(g, shape, math.sqrt(2 / shape[-2]))),
    "glorot_uniform": Initializer(lambda g, shape: _uniform(g, shape, math.sqrt(6 / (shape[-2] + shape[-1])))),
    "truncated_normal": Initializer(lambda g, shape: _truncated_normal(g, shape, 0.01)),
}
"""Values of `model.init`."""
