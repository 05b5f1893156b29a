"""The outer optimisers: those of torch.optim, and their formulas as functions, for a graph that holds many operations.

What the functions keep of each leaf is what torch.optim keeps, so that either may go on from the other.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adam import adam

MakeOptimizer = Callable[[Sequence[Tensor], float], Optimizer]

# Adam and AdamW run as one fused kernel instead of a dozen operations a tensor: the same formula.
OPTIMIZERS: dict[str, MakeOptimizer] = {
    "adam": lambda leaves, lr: torch.optim.Adam(leaves, lr=lr, fused=True),
    "adamw": lambda leaves, lr: torch.optim.AdamW(leaves, lr=lr, fused=True),
    "rmsprop": lambda leaves, lr: torch.optim.RMSprop(leaves, lr=lr),
    "sgd": lambda leaves, lr: torch.optim.SGD(leaves, lr=lr),
    "momentum": lambda leaves, lr: torch.optim.SGD(leaves, lr=lr, momentum=0.9),
}


class OuterOptimizer(NamedTuple):
    """An optimiser of part of a Meta, and the learning rate that a schedule scales."""

    optimizer: Optimizer
    base_lr: float

    def tensors(self) -> list[Tensor]:
        """What it learns."""
        return [leaf for group in self.optimizer.param_groups for leaf in group["params"]]

    def step(self) -> None:
        """Move against the gradients of the leaves."""
        optimizer = self.optimizer
        if isinstance(optimizer, torch.optim.Adam) and optimizer.state:
            _fused_step(optimizer)
        else:
            optimizer.step()

    def steps_taken(self) -> int:
        """The steps that it has counted, if it counts any."""
        return max(int(self.optimizer.state.get(leaf, {}).get("step", 0)) for leaf in self.tensors())

    def add_steps(self, steps: int) -> None:
        """Count steps that something else took."""
        for leaf in self.tensors():
            if "step" in self.optimizer.state.get(leaf, {}):
                self.optimizer.state[leaf]["step"] += steps


@torch.no_grad()
def _fused_step(optimizer: torch.optim.Adam) -> None:
    """A step of Adam or AdamW after its first, without what torch.optim does around it, as to ask for hooks and to tell
    a profiler: half of the time where networks are small."""
    for group in optimizer.param_groups:
        leaves = [leaf for leaf in group["params"] if leaf.grad is not None]
        first, second, steps = (
            [optimizer.state[leaf][name] for leaf in leaves] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        beta1, beta2 = group["betas"]
        adam(
            leaves,
            [leaf.grad for leaf in leaves],
            first,
            second,
            [],
            steps,
            fused=True,
            decoupled_weight_decay=group["decoupled_weight_decay"],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


FormulaStep = Callable[[Tensor, Tensor, Sequence[Tensor], Tensor], Sequence[Tensor]]
"""(value, gradient, what is kept of it, rates) -> the next value, and what is kept next; rates as `rates` has them."""


class OptimizerFormula(NamedTuple):
    """A step of an optimiser; under which names torch.optim keeps what it keeps, and whether it counts its steps."""

    step: FormulaStep
    state_names: Sequence[str] = ()
    has_step_count: bool = False


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


OPTIMIZER_FORMULAS = {
    "adam": OptimizerFormula(_adam, ("exp_avg", "exp_avg_sq"), has_step_count=True),
    "adamw": OptimizerFormula(_adamw, ("exp_avg", "exp_avg_sq"), has_step_count=True),
    "rmsprop": OptimizerFormula(_rmsprop, ("square_avg",), has_step_count=True),
    "sgd": OptimizerFormula(_sgd),
    "momentum": OptimizerFormula(_momentum, ("momentum_buffer",)),
}
"""Those of `OPTIMIZERS`."""


def bias_corrections(lr: float, count: int) -> tuple[float, float, float]:
    """The rates of step `count`, from 1: the learning rate, and the weight of all gradients in the means of Adam."""
    return (lr, 1 - 0.9**count, 1 - 0.999**count)


def optimizer_state(update: OptimizerFormula, learned: OuterOptimizer, leaf: Tensor) -> list[Tensor]:
    """What torch.optim keeps of a leaf; before the first step zeros, from which it goes on."""
    if not update.state_names:
        return []
    state: dict[str, Tensor] = learned.optimizer.state[leaf]
    if not state:
        state |= {"step": torch.zeros((), device=leaf.device)} if update.has_step_count else {}
        state |= {name: torch.zeros_like(leaf) for name in update.state_names}
    return [state[name] for name in update.state_names]
