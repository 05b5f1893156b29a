"""Derivatives of a multilayer perceptron, without autograd: gradients, and Hessian-vector products of its loss.

Shapes: R runs, B tasks in each, N = R * B tasks in all, along one axis. Points are (N, K, n). The parameters of a
layer are (N, in, out) and (N, 1, out) where each task has its own, as after an inner step, and (R, in, out) and
(R, 1, out) where the tasks of a run share them. Written with z = h W + b for a layer and h = f(z) for its activation.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core import Activation, ActivationDerivatives, LossDerivatives, Params, PointLoss, Points


class NetworkSpec(NamedTuple):
    """A multilayer perceptron and its loss, with the first and second derivatives of activation and loss.

    layers: the keys of the weight and the bias of each layer, inputs first.
    activation, activation_derivatives: f, and (f', f'').
    loss, loss_derivatives: the loss of a point, and its derivatives by the residual.
    """

    layers: Sequence[tuple[str, str]]
    activation: Activation
    activation_derivatives: ActivationDerivatives
    loss: PointLoss
    loss_derivatives: LossDerivatives


class Products(NamedTuple):
    """Products of the points of all tasks, (N, K, in), with the weights of a layer.

    affine: (h, W, b) -> h W + b.
    matmul: (h, W) -> h W.
    add_matmul_: (value, h, W) -> value + h W, in place.
    """

    affine: Callable[[Tensor, Tensor, Tensor], Tensor]
    matmul: Callable[[Tensor, Tensor], Tensor]
    add_matmul_: Callable[[Tensor, Tensor, Tensor], Tensor]


class Layer(NamedTuple):
    """The parameters of a layer at an inner step.

    weight, bias: (N, in, out) and (N, 1, out), or (R, in, out) and (R, 1, out).
    products: PER_TASK or SHARED, according to which of the two it is.
    """

    weight: Tensor
    bias: Tensor
    products: Products


class ForwardBackward(NamedTuple):
    """Intermediates of a forward and backward pass, which gradients and Hessian-vector products need.

    inputs: h, the inputs of each layer, (N, K, in).
    deltas: dL/dz of each layer, (N, K, out).
    act_first, act_second: f'(z) and f''(z) of each hidden layer; None where f'' is zero.
    grad_hidden: dL/dh of the output of each hidden layer.
    loss_second: the second derivative of the loss by each residual, or a number where it is constant.
    residuals: prediction - target, (N, K, 1).
    """

    inputs: list[Tensor]
    deltas: list[Tensor]
    act_first: list[Tensor]
    act_second: list[Tensor | None]
    grad_hidden: list[Tensor]
    loss_second: Tensor | float
    residuals: Tensor


def forward_backward(
    network: NetworkSpec, layers: Sequence[Layer], points: Points, factor: float = 1
) -> ForwardBackward:
    """Backpropagation of each task's mean loss at `points` (N, K, n), times `factor`."""
    h, inputs, act_first, act_second = points.x, [points.x], list[Tensor](), list[Tensor | None]()
    for layer in layers[:-1]:
        z = layer.products.affine(h, layer.weight, layer.bias)
        h = network.activation(z)
        first, second = network.activation_derivatives(z, h)
        inputs.append(h)
        act_first.append(first)
        act_second.append(second)
    head = layers[-1]
    residuals = head.products.affine(h, head.weight, head.bias) - points.y
    num_points, num_outputs = points.y.shape[1:]
    delta, loss_second = network.loss_derivatives(residuals, factor / (num_points * num_outputs))
    deltas, grad_hidden = [delta], list[Tensor]()
    for layer, first in zip(layers[:0:-1], act_first[::-1], strict=True):
        grad_hidden.insert(0, layer.products.matmul(deltas[0], layer.weight.mT))
        deltas.insert(0, grad_hidden[0] * first)
    return ForwardBackward(inputs, deltas, act_first, act_second, grad_hidden, loss_second, residuals)


def gradients(network: NetworkSpec, saved: ForwardBackward, keys: Collection[str]) -> Params:
    """dL/dW = h^T dL/dz and dL/db of each task, (N, ...), for the layers whose weights are among `keys`."""
    result = {}
    for (weight, bias), h, delta in zip(network.layers, saved.inputs, saved.deltas, strict=True):
        if weight in keys:
            result[weight] = _outer(h, delta)
            result[bias] = delta.sum(dim=1, keepdim=True)
    return result


def subtract_hvp_(
    network: NetworkSpec, layers: Sequence[Layer], saved: ForwardBackward, vector: Params, adjoint: Params
) -> None:
    """`adjoint` - H `vector`, in place, with H the Hessian of each task's loss.

    `vector` is (N, ...); parameters that it lacks count as zero. `adjoint` is (N, ...), or (R, ...) for the sum over
    the tasks of each run. The product is the derivative of the gradient along `vector` (Pearlmutter 1994): tangents of
    all intermediates of the pass `saved`, first forward and then backward.
    """
    z_dots, h_dots = _forward_tangents(network, layers, saved, vector)
    z_dot = z_dots[-1]
    assert z_dot is not None, "nothing adapts"
    delta_dot = z_dot * saved.loss_second
    for index in range(len(layers))[::-1]:
        (weight, bias), layer, h_dot = network.layers[index], layers[index], h_dots[index]
        _subtract_outer_(adjoint[weight], saved.inputs[index], delta_dot)
        adjoint[bias].sub_(_sum_over_points(delta_dot, adjoint[bias].shape[0]))
        if h_dot is not None:
            _subtract_outer_(adjoint[weight], h_dot, saved.deltas[index])
        if index:
            grad_dot = layer.products.matmul(delta_dot, layer.weight.mT)
            if weight in vector:
                grad_dot = _add_matmul_per_task_(grad_dot, saved.deltas[index], vector[weight].mT)
            delta_dot = grad_dot * saved.act_first[index - 1]
            z_dot, act_second = z_dots[index - 1], saved.act_second[index - 1]
            if z_dot is not None and act_second is not None:
                delta_dot = delta_dot + saved.grad_hidden[index - 1] * act_second * z_dot


def _forward_tangents(
    network: NetworkSpec, layers: Sequence[Layer], saved: ForwardBackward, vector: Params
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Tangents along `vector` of z and of the inputs h of each layer; None where they are zero."""
    z_dots, h_dots = list[Tensor | None](), list[Tensor | None]([None])
    act_first = [*saved.act_first, None]
    for (weight, bias), layer, h, first in zip(network.layers, layers, saved.inputs, act_first, strict=True):
        h_dot = h_dots[-1]
        z_dot = _affine_per_task(h, vector[weight], vector[bias]) if weight in vector else None
        if h_dot is not None:
            if z_dot is None:
                z_dot = layer.products.matmul(h_dot, layer.weight)
            else:
                z_dot = layer.products.add_matmul_(z_dot, h_dot, layer.weight)
        z_dots.append(z_dot)
        h_dots.append(None if z_dot is None or first is None else z_dot * first)
    return z_dots, h_dots


def sum_over_tasks(value: Tensor, rows: int) -> Tensor:
    """The sum over the tasks of each run, (N, ...) -> (R, ...), where `rows` is R; with `rows` N, the value itself."""
    if value.shape[0] == rows:
        return value
    return value.sum(dim=0, keepdim=True) if rows == 1 else value.view(rows, -1, *value.shape[1:]).sum(dim=1)


def _sum_over_points(value: Tensor, rows: int) -> Tensor:
    """The sum over the points of each task, (N, K, out) -> (N, 1, out), or with `rows` R over those of each run."""
    return value.view(rows, -1, value.shape[-1]).sum(dim=1, keepdim=True)


# A weight with one row multiplies by broadcasting, and one with one column as a row: both are much faster.


def _affine_per_task(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    fan_in, fan_out = weight.shape[-2:]
    if fan_in == 1:
        return torch.addcmul(bias, h, weight)
    return torch.baddbmm(bias, weight.mT, h.mT).mT if fan_out == 1 else torch.baddbmm(bias, h, weight)


def _matmul_per_task(h: Tensor, weight: Tensor) -> Tensor:
    fan_in, fan_out = weight.shape[-2:]
    if fan_in == 1:
        return h * weight
    return torch.bmm(weight.mT, h.mT).mT if fan_out == 1 else torch.bmm(h, weight)


def _affine_shared(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One large product for each run, of the points of all its tasks."""
    runs, fan_in, _ = weight.shape
    if runs == fan_in == 1:
        return torch.addcmul(bias, h, weight)
    return torch.baddbmm(bias, _merge_tasks(h, runs), weight).view(*h.shape[:-1], -1)


def _matmul_shared(h: Tensor, weight: Tensor) -> Tensor:
    runs, fan_in, _ = weight.shape
    if runs == fan_in == 1:
        return h * weight
    return torch.bmm(_merge_tasks(h, runs), weight).view(*h.shape[:-1], -1)


def _add_matmul_per_task_(value: Tensor, h: Tensor, weight: Tensor) -> Tensor:
    fan_in, fan_out = weight.shape[-2:]
    if fan_in == 1:
        return value.addcmul_(h, weight)
    return value.mT.baddbmm_(weight.mT, h.mT).mT if fan_out == 1 else value.baddbmm_(h, weight)


def _add_matmul_shared_(value: Tensor, h: Tensor, weight: Tensor) -> Tensor:
    runs, fan_in, _ = weight.shape
    if runs == fan_in == 1:
        return value.addcmul_(h, weight)
    value.view(runs, -1, value.shape[-1]).baddbmm_(_merge_tasks(h, runs), weight)
    return value


PER_TASK = Products(_affine_per_task, _matmul_per_task, _add_matmul_per_task_)  # for weights (N, in, out)
SHARED = Products(_affine_shared, _matmul_shared, _add_matmul_shared_)  # for weights (R, in, out)


def _outer(h: Tensor, delta: Tensor) -> Tensor:
    """h^T delta, summed over the points of each task."""
    return torch.bmm(delta.mT, h).mT if delta.shape[-1] == 1 else torch.bmm(h.mT, delta)


def _subtract_outer_(value: Tensor, h: Tensor, delta: Tensor) -> None:
    """`value` - h^T delta, in place, summed over the points of each task, or of each run if `value` is (R, ...)."""
    rows = value.shape[0]
    if rows < h.shape[0]:
        h, delta = _merge_tasks(h, rows), _merge_tasks(delta, rows)
    if delta.shape[-1] == 1:
        value.mT.baddbmm_(delta.mT, h, alpha=-1)
    else:
        value.baddbmm_(h.mT, delta, alpha=-1)


def _merge_tasks(h: Tensor, runs: int) -> Tensor:
    """The points of all tasks of a run along one axis: (N, K, n) -> (R, B * K, n)."""
    return h.reshape(runs, -1, h.shape[-1])
