"""The compile-time constants of a kernel, and the sizes that follow from them; without PyTorch, whose import takes as
long as a kernel's compilation."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from maml_cli.config import (
    KERNEL_ACTIVATIONS,
    KERNEL_CLIPS,
    KERNEL_LOSSES,
    PENALTY_ROWS,
    Config,
    gradient_steps,
    kernel_clip,
    kernel_points,
    layer_widths,
    num_curvatures,
)

C_TYPES = {"float32": "float", "float64": "double"}


class KernelSpec(NamedTuple):
    """The compile-time constants of a kernel.

    dtype: float32 or float64, of all points, parameters and gradients.
    widths: units of each layer: the inputs (x, and three of an oracle), the hidden layers, the output (1).
    num_support, num_query: points of a task.
    inner_steps: gradient steps of the inner loop; 0 in joint training and where adapting is solving for the head alone.
    activation, loss: of the network and of its points, of `KERNEL_ACTIVATIONS` and `KERNEL_LOSSES`.
    alpha_steps: alphas of each group, 1 (all inner steps share it) or `inner_steps`.
    per_parameter: whether each adapted parameter has its own alpha, instead of each group.
    learned: whether the outer loop learns alphas.
    positive: whether the learned value is log(alpha).
    groups: index of the alpha group of each tensor (weight and bias of each layer, and the context if there is one);
        -1: the tensor does not adapt.
    curvatures: curvatures that are learned, 0, 1 (all inner steps share it) or `inner_steps`.
    clip: the clip of the gradients of inner steps, of `KERNEL_CLIPS`.
    momentum: whether inner steps have momentum.
    scale_by_rms: whether inner steps are those of Adam without momentum.
    proximal: whether the inner loss has a proximal term.
    context: context inputs.
    context_learned: whether the outer loop learns their values at the start of a task; they are zero otherwise.
    penalties: penalties of a head in closed form and of the loss of each inner step: 1, or one for each feature and the
        bias; 0: the head descends a gradient.
    penalties_learned: whether the outer loop learns them.
    reptile: whether the adapted parameters take the place of a meta-gradient.
    """

    dtype: str
    widths: Sequence[int]
    num_support: int
    num_query: int
    inner_steps: int
    activation: str
    loss: str
    alpha_steps: int
    per_parameter: bool
    learned: bool
    positive: bool
    groups: Sequence[int]
    curvatures: int = 0
    clip: str = "none"
    momentum: bool = False
    scale_by_rms: bool = False
    proximal: bool = False
    context: int = 0
    context_learned: bool = False
    penalties: int = 0
    penalties_learned: bool = False
    reptile: bool = False

    def definitions(self) -> list[str]:
        """The constants as arguments of the compiler."""
        values: dict[str, object] = {
            "REAL": C_TYPES[self.dtype],
            "WIDTHS": ",".join(map(str, self.widths)),
            "SUPPORT": self.num_support,
            "QUERY": self.num_query,
            "STEPS": self.inner_steps,
            "ACTIVATION": KERNEL_ACTIVATIONS.index(self.activation),
            "LOSS": KERNEL_LOSSES.index(self.loss),
            "ALPHAS": self.alpha_steps,
            "PER_PARAMETER": int(self.per_parameter),
            "LEARNED": int(self.learned),
            "POSITIVE": int(self.positive),
            "GROUPS": ",".join(map(str, self.groups)),
            "NUM_GROUPS": max(self.groups) + 1,
            "CURVATURES": self.curvatures,
            "CLIP": KERNEL_CLIPS.index(self.clip),
            "MOMENTUM": int(self.momentum),
            "SCALE_BY_RMS": int(self.scale_by_rms),
            "PROXIMAL": int(self.proximal),
            "CONTEXT": self.context,
            "CONTEXT_LEARNED": int(self.context_learned),
            "PENALTIES": self.penalties,
            "PENALTIES_LEARNED": int(self.penalties_learned),
            "REPTILE": int(self.reptile),
        }
        return [f"-D{name}={value}" for name, value in values.items()]

    @property
    def tensor_sizes(self) -> list[int]:
        """Elements of the weight and the bias of each layer, and of the context if there is one."""
        sizes = [size for ins, outs in itertools.pairwise(self.widths) for size in (ins * outs, outs)]
        return [sizes[0] + self.context * self.widths[1], *sizes[1:], *([self.context] if self.context else [])]

    @property
    def num_params(self) -> int:
        """Parameters of the network, and values of the context if they are learned."""
        return sum(self.tensor_sizes) - (0 if self.context_learned else self.context)

    @property
    def num_alphas(self) -> int:
        """Alphas of a run."""
        adapted = sum(size for size, group in zip(self.tensor_sizes, self.groups, strict=True) if group >= 0)
        return self.alpha_steps * (adapted if self.per_parameter else max(self.groups) + 1)

    @property
    def num_factors(self) -> int:
        """Numbers in the factors of the curvatures of a run: n * n for each axis of each tensor that adapts."""
        if not self.curvatures:
            return 0
        squares = [size for ins, outs in itertools.pairwise(self.widths) for size in (ins**2 + outs**2, outs**2)]
        adapted = (size for size, group in zip(squares, self.groups, strict=True) if group >= 0)
        return self.curvatures * sum(adapted)

    @property
    def num_penalties(self) -> int:
        """Penalties of a run."""
        return self.penalties * (1 + self.inner_steps)

    @property
    def num_values(self) -> int:
        """Meta-parameters of a run: parameters, alphas, factors and penalties, those that are not learned last."""
        return self.num_params + self.num_alphas + self.num_factors + self.num_penalties

    @property
    def num_learned(self) -> int:
        """The first of these values, which have gradients and moments."""
        fixed = (0 if self.learned else self.num_alphas) + (0 if self.penalties_learned else self.num_penalties)
        return self.num_values - fixed


def kernel_spec(config: Config) -> KernelSpec:
    """The constants of the kernel for `config`."""
    inner, alpha = config.inner, config.inner.alpha
    num_support, num_query = kernel_points(config)
    inputs, *others = layer_widths(config)
    widths = [inputs - config.model.num_context, *others]
    is_ridge = inner.head == "ridge"
    return KernelSpec(
        dtype=config.run.dtype,
        widths=widths,
        num_support=num_support,
        num_query=num_query,
        inner_steps=gradient_steps(config),
        activation=config.model.activation,
        loss=inner.loss,
        alpha_steps=inner.steps if alpha.per_step else 1,
        per_parameter=alpha.per == "parameter",
        learned=alpha.learned,
        positive=alpha.sign == "positive",
        groups=_alpha_groups(config),
        curvatures=num_curvatures(config),
        clip=kernel_clip(config),
        momentum=inner.momentum > 0,
        scale_by_rms=inner.optimizer == "adam",
        proximal=inner.proximal > 0,
        context=config.model.num_context,
        context_learned=config.model.context_learned,
        penalties=PENALTY_ROWS[inner.ridge.per](widths[-2] + 1) if is_ridge else 0,
        penalties_learned=is_ridge and inner.ridge.learned,
        reptile=config.outer.meta_gradient == "reptile",
    )


GROUP_LABELS: dict[str, Callable[[int, int], int]] = {
    "scalar": lambda layer, tensor: 0,
    "layer": lambda layer, tensor: layer,
    "tensor": lambda layer, tensor: tensor,
    "parameter": lambda layer, tensor: tensor,
}
"""Values of `inner.alpha.per`: the numbers of a layer and of a tensor, the context last -> those of a group alike."""


def _alpha_groups(config: Config) -> list[int]:
    """The index of the alpha group of each tensor, numbered in their order, and -1 for those that do not adapt."""
    inner, layers = config.inner, len(config.model.hidden) + 1
    tensors = [(layer, "head" if layer == layers - 1 else "body") for layer in range(layers) for _ in range(2)]
    tensors += [(layers, "context")] * (config.model.num_context > 0)
    solved = "head" if inner.head == "ridge" else None
    labels = [
        GROUP_LABELS[inner.alpha.per](layer, tensor) if inner.adapt in ("all", part) and part != solved else -1
        for tensor, (layer, part) in enumerate(tensors)
    ]
    numbers = {label: number for number, label in enumerate(dict.fromkeys(label for label in labels if label >= 0))}
    return [numbers.get(label, -1) for label in labels]
