"""The outer optimisers as functions: the formulas of torch.optim, where a graph of many operations is to hold them.

What they keep of each leaf is what torch.optim keeps, so that either may go on from the other.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.outer import Learned

Move = Callable[[Tensor, Tensor, Sequence[Tensor], Tensor], Sequence[Tensor]]
"""(value, gradient, what is kept of it, rates) -> the next value, and what is kept next; rates as `rates` has them."""


class Update(NamedTuple):
    """A step of an optimiser; under which names torch.optim keeps what it keeps, and whether it counts its steps."""

    move: Move
    keeps: Sequence[str] = ()
    counts: bool = False


def _adam(value: Tensor, slope: Tensor, kept: Sequence[Tensor], rates: Tensor, *, decay: float = 0.0) -> list[Tensor]:
    lr, first_part, second_part = rates.unbind()
    first = kept[0] + 0.1 * (slope - kept[0])
    second = 0.999 * kept[1] + 0.001 * slope * slope
    change = (lr / first_part) * first / (second.sqrt() / second_part.sqrt() + 1e-8)
    return [value * (1 - lr * decay) - change, first, second]


def _adamw(value: Tensor, slope: Tensor, kept: Sequence[Tensor], rates: Tensor) -> list[Tensor]:
    return _adam(value, slope, kept, rates, decay=0.01)


def _rmsprop(value: Tensor, slope: Tensor, kept: Sequence[Tensor], rates: Tensor) -> list[Tensor]:
    square = 0.99 * kept[0] + 0.01 * slope * slope
    return [value - rates[0] * slope / (square.sqrt() + 1e-8), square]


def _sgd(value: Tensor, slope: Tensor, kept: Sequence[Tensor], rates: Tensor) -> list[Tensor]:
    return [value - rates[0] * slope]


def _momentum(value: Tensor, slope: Tensor, kept: Sequence[Tensor], rates: Tensor) -> list[Tensor]:
    speed = 0.9 * kept[0] + slope
    return [value - rates[0] * speed, speed]


UPDATES = {
    "adam": Update(_adam, ("exp_avg", "exp_avg_sq"), counts=True),
    "adamw": Update(_adamw, ("exp_avg", "exp_avg_sq"), counts=True),
    "rmsprop": Update(_rmsprop, ("square_avg",), counts=True),
    "sgd": Update(_sgd),
    "momentum": Update(_momentum, ("momentum_buffer",)),
}
"""The optimisers of `outer.OPTIMIZERS`."""


def rates(lr: float, count: int) -> tuple[float, float, float]:
    """The rates of step `count`, from 1: the learning rate, and the weight of all gradients in the means of Adam."""
    return (lr, 1 - 0.9**count, 1 - 0.999**count)


def kept(update: Update, learned: Learned, leaf: Tensor) -> list[Tensor]:
    """What torch.optim keeps of a leaf; before the first step zeros, from which it goes on."""
    if not update.keeps:
        return []
    state: dict[str, Tensor] = learned.optimizer.state[leaf]
    if not state:
        state |= {"step": torch.zeros((), device=leaf.device)} if update.counts else {}
        state |= {name: torch.zeros_like(leaf) for name in update.keeps}
    return [state[name] for name in update.keeps]
