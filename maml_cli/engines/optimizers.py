"""The outer optimisers: those of torch.optim, and their formulas as pure functions for graphs and kernels.

Both keep the same state under the same names, so that a training can change engines at any step. A checkpoint has this
state alone: hyperparameters always come from the config.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from maml_cli.core import lookup
from maml_cli.errors import CheckpointError
from maml_cli.runs import check_finite, check_tensors

FormulaStep = Callable[[Tensor, Tensor, Sequence[Tensor], Tensor], Sequence[Tensor]]
"""(value, gradient, state tensors, (lr, *bias corrections)) -> the next value, and its next state tensors."""


class OptimizerKind(NamedTuple):
    """An outer optimiser by name.

    make: (tensors, learning rate) -> the torch.optim optimiser.
    formula: its step as a pure function.
    state_names: the names under which torch.optim stores the state tensors of the formula.
    has_step_count: whether torch.optim counts its steps under the name `step`.
    """

    make: Callable[[Sequence[Tensor], float], Optimizer]
    formula: FormulaStep
    state_names: Sequence[str] = ()
    has_step_count: bool = False


class OuterOptimizer(NamedTuple):
    """An optimiser of a group of learned tensors.

    optimizer: the torch.optim optimiser, with its state.
    base_lr: the learning rate that a schedule scales.
    kind: its row in OUTER_OPTIMIZERS.
    """

    optimizer: Optimizer
    base_lr: float
    kind: OptimizerKind

    def tensors(self) -> list[Tensor]:
        """The tensors that it updates."""
        return [tensor for group in self.optimizer.param_groups for tensor in group["params"]]

    def step(self) -> None:
        """Update the tensors by their gradients."""
        optimizer = self.optimizer
        if isinstance(optimizer, torch.optim.Adam):
            if not optimizer.state:
                for tensor in self.tensors():
                    optimizer_state(self, tensor)
            _fused_adam_step(optimizer)
        else:
            optimizer.step()

    def steps_taken(self) -> int:
        """Steps that the optimiser has counted; 0 for one without a count."""
        return max(int(self.optimizer.state.get(tensor, {}).get("step", 0)) for tensor in self.tensors())

    def add_steps(self, steps: int) -> None:
        """Count `steps` that were taken by a formula or a kernel."""
        for tensor in self.tensors():
            if "step" in self.optimizer.state.get(tensor, {}):
                self.optimizer.state[tensor]["step"] += steps

    def set_lr(self, scale: float) -> None:
        """Set the learning rate to `scale` times the base rate; infinite where the dtype of the tensors lacks it."""
        lr = self.base_lr * scale
        largest = torch.finfo(self.tensors()[0].dtype).max
        for group in self.optimizer.param_groups:
            group["lr"] = lr if lr <= largest else math.inf


def optimizer_kind(name: str) -> OptimizerKind:
    """The row of `OUTER_OPTIMIZERS` for `name`; raises NotImplementedError if there is none."""
    return lookup(OUTER_OPTIMIZERS, name, "outer.optimizer", "engines.optimizers.OUTER_OPTIMIZERS")


def make_outer_optimizer(name: str, tensors: Sequence[Tensor], lr: float) -> OuterOptimizer:
    """The outer optimiser `name` for `tensors`; raises NotImplementedError for a name without a row."""
    kind = optimizer_kind(name)
    return OuterOptimizer(kind.make(tensors, lr), lr, kind)


def optimizer_state(outer: OuterOptimizer, tensor: Tensor) -> list[Tensor]:
    """The state tensors of `tensor`, by the order of `state_names`; created as zeros before the first step."""
    kind = outer.kind
    if not kind.state_names:
        return []
    state: dict[str, Tensor] = outer.optimizer.state[tensor]
    if not state:
        state |= {"step": torch.zeros((), device=tensor.device)} if kind.has_step_count else {}
        state |= {name: torch.zeros_like(tensor) for name in kind.state_names}
    return [state[name] for name in kind.state_names]


def save_state(outer: OuterOptimizer, keys: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """The state of each of its tensors, whose names are `keys`, by the names of torch.optim; empty before a step."""
    names = [*(["step"] if outer.kind.has_step_count else []), *outer.kind.state_names]
    states = [outer.optimizer.state.get(tensor, {}) for tensor in outer.tensors()]
    return {
        key: {name: state[name] for name in names if name in state} for key, state in zip(keys, states, strict=True)
    }


def load_state(
    outer: OuterOptimizer, saved: Mapping[str, Any], *, keys: Sequence[str], step: int, diverged: Tensor
) -> None:
    """Restore the state that `save_state` saved after `step` outer steps; mutates `outer`.

    Raises CheckpointError unless its keys, shapes and dtypes are those that the optimiser itself would have, its counts
    of steps are `step`, and its moments in active runs, those with 0 in `diverged` (R,), are finite, and of squares not
    negative. A kernel would write past the end of others.
    """
    if saved.keys() != {*keys}:
        raise CheckpointError("the optimiser state is not of the tensors that its config learns")
    for key, tensor in zip(keys, outer.tensors(), strict=True):
        expected = {name: torch.empty_like(tensor, device="meta") for name in outer.kind.state_names if step}
        if outer.kind.has_step_count and step:
            expected = {"step": torch.empty((), dtype=torch.float32, device="meta")} | expected
        check_tensors(saved[key], expected, f"optimizers.{key}")
        if "step" in expected and not _is_count(saved[key]["step"].item(), step):
            raise CheckpointError(f"optimizers.{key}.step is {saved[key]['step'].item():g}, not {step:,}")
        for name in outer.kind.state_names if step else ():
            least = 0.0 if name.endswith("sq") or name.startswith("square") else -math.inf
            check_finite({name: saved[key][name]}, diverged, f"optimizers.{key}", least=least)
        if expected:
            outer.optimizer.state[tensor] = {name: saved[key][name].to(tensor.device) for name in expected}


def _is_count(value: float, step: int) -> bool:
    """Whether the float32 `value` counts `step` steps: exactly, up to 2^24; beyond, counting by ones stops there."""
    return value == step if step <= 2**24 else 2**24 <= value <= 2 * step


def bias_corrections(lr: float, count: int) -> tuple[float, float, float]:
    """Step size and bias corrections of step `count`, from 1: (lr, 1 - beta1^count, 1 - beta2^count)."""
    return (lr, 1 - 0.9**count, 1 - 0.999**count)


@torch.no_grad()
def _fused_adam_step(optimizer: torch.optim.Adam) -> None:
    """A step of Adam or AdamW without torch.optim's overhead: its hooks and profiler, which double the time for small
    networks, its counting of steps, and its import of torch._dynamo at the first step, seconds of a short training. The
    fused operations and the layout of the state were verified on torch 2.13."""
    for group in optimizer.param_groups:
        tensors = [tensor for tensor in group["params"] if tensor.grad is not None]
        if not tensors:
            continue
        first, second, steps = (
            [optimizer.state[tensor][name] for tensor in tensors] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        for step in steps:
            step += 1
        fused_step = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        beta1, beta2 = group["betas"]
        fused_step(
            tensors,
            [tensor.grad for tensor in tensors],
            first,
            second,
            [],
            steps,
            amsgrad=False,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _adam(
    value: Tensor, grad: Tensor, state: Sequence[Tensor], rates: Tensor, *, decay: float = 0.0
) -> Sequence[Tensor]:
    lr, first_correction, second_correction = rates.unbind()
    first = state[0] + 0.1 * (grad - state[0])
    second = 0.999 * state[1] + 0.001 * grad * grad
    update = (lr / first_correction) * first / (second.sqrt() / second_correction.sqrt() + 1e-8)
    return [value * (1 - lr * decay) - update, first, second]


def _adamw(value: Tensor, grad: Tensor, state: Sequence[Tensor], rates: Tensor) -> Sequence[Tensor]:
    return _adam(value, grad, state, rates, decay=0.01)


def _rmsprop(value: Tensor, grad: Tensor, state: Sequence[Tensor], rates: Tensor) -> Sequence[Tensor]:
    square = 0.99 * state[0] + 0.01 * grad * grad
    return [value - rates[0] * grad / (square.sqrt() + 1e-8), square]


def _sgd(value: Tensor, grad: Tensor, state: Sequence[Tensor], rates: Tensor) -> Sequence[Tensor]:
    return [value - rates[0] * grad]


def _momentum(value: Tensor, grad: Tensor, state: Sequence[Tensor], rates: Tensor) -> Sequence[Tensor]:
    velocity = 0.9 * state[0] + grad
    return [value - rates[0] * velocity, velocity]


ADAM_STATE = ("exp_avg", "exp_avg_sq")
# With `fused`, Adam and AdamW are one kernel instead of a dozen operations a tensor: the same formula.
OUTER_OPTIMIZERS: dict[str, OptimizerKind] = {
    "adam": OptimizerKind(lambda tensors, lr: torch.optim.Adam(tensors, lr=lr, fused=True), _adam, ADAM_STATE, True),
    "adamw": OptimizerKind(lambda tensors, lr: torch.optim.AdamW(tensors, lr=lr, fused=True), _adamw, ADAM_STATE, True),
    "rmsprop": OptimizerKind(lambda tensors, lr: torch.optim.RMSprop(tensors, lr=lr), _rmsprop, ("square_avg",), True),
    "sgd": OptimizerKind(lambda tensors, lr: torch.optim.SGD(tensors, lr=lr), _sgd),
    "momentum": OptimizerKind(
        lambda tensors, lr: torch.optim.SGD(tensors, lr=lr, momentum=0.9), _momentum, ("momentum_buffer",)
    ),
}
"""The outer optimisers that the schema names, one a row."""
