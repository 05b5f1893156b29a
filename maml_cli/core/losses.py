"""Losses: the distance of predictions from targets, one number for each task."""

from collections.abc import Callable

import torch
from torch import Tensor

from maml_cli.core.batch import Points
from maml_cli.core.network import Params, Predict

TaskLoss = Callable[[Params, Points], Tensor]
"""(params, points) -> the loss of each task, (R, B)."""

PointLoss = Callable[[Tensor], Tensor]
"""Errors, prediction minus target -> the loss of each, of the same shape."""

LossDerivatives = Callable[[Tensor, float], tuple[Tensor, Tensor | float]]
"""(errors, factor) -> first and second derivative of a point loss, times the factor; each of the shape of the errors,
or a number where it is constant."""


def squared(error: Tensor) -> Tensor:
    """Squared error; its mean is the MSE, without a factor 1/2."""
    return error * error


def half_squared(error: Tensor) -> Tensor:
    """Half the squared error, as papers that write 1/2 |error|^2 have it; an alpha of MSE is half of one for it."""
    return 0.5 * squared(error)


def absolute(error: Tensor) -> Tensor:
    """Absolute error (L1)."""
    return error.abs()


def huber(error: Tensor) -> Tensor:
    """Huber's loss with delta 1: error^2 / 2 up to |error| = 1, |error| - 1/2 beyond."""
    return torch.nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none")


LOSSES: dict[str, PointLoss] = {"mse": squared, "half_mse": half_squared, "l1": absolute, "huber": huber}
"""Values of `inner.loss`."""

LOSS_DERIVATIVES: dict[str, LossDerivatives] = {
    "mse": lambda error, factor: (error * (2 * factor), 2 * factor),
    "half_mse": lambda error, factor: (error * factor, factor),
    "l1": lambda error, factor: (error.sign() * factor, 0.0),
    "huber": lambda error, factor: (error.clamp(-1, 1) * factor, (error.abs() < 1).to(error.dtype) * factor),
}
"""The derivatives of `LOSSES`."""


def mean_loss(predict: Predict, point_loss: PointLoss) -> TaskLoss:
    """The mean of `point_loss` over a task's points, (R, B); never a mean over tasks.

    >>> loss = mean_loss(lambda params, x: x * params["w"], squared)
    >>> points = Points(x=torch.tensor([[[[1.0], [2.0]]]]), y=torch.zeros(1, 1, 2, 1))
    >>> loss({"w": torch.ones(1, 1, 1, 1)}, points)  # (1 + 4) / 2
    tensor([[2.5000]])
    """

    def loss(params: Params, points: Points) -> Tensor:
        return point_loss(residual(predict(params, points.x), points.y)).mean(dim=(-2, -1))

    return loss


def residual(prediction: Tensor, target: Tensor) -> Tensor:
    """`prediction - target`; raises ValueError for shapes that would broadcast into wrong pairs, as (K, 1) - (K,)."""
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
    return prediction - target
