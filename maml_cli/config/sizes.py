"""Sizes that follow from a config: the axes of its parameters, and the number of values that a run learns."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from maml_cli.config.constraint import Constraint

if TYPE_CHECKING:
    from maml_cli.config.schema import Config

NUM_GRID = 100
"""Points of the grid on which evaluations measure errors."""
MAX_CHECKPOINT_BYTES = 2**28 - 2**24
"""Size limit of the values that are learned and their moments: that of a checkpoint, 256 MiB, less 16 MiB for its
generators, 10 MiB for 1024 seeds, and everything else."""
VALUES_PER_PARAM = 3
"""Values of a checkpoint for each that is learned: itself, and up to two moments of its outer optimiser."""

PENALTY_ROWS: dict[str, Callable[[int], int]] = {"scalar": lambda size: 1, "feature": lambda size: size}
"""Values of `inner.ridge.per`: number of weights of the head, the bias included -> number of penalties."""

Axes = tuple[int, ...]
"""The axes of a parameter: (in, out) of a weight, (out,) of a bias or of the context."""


def layer_widths(config: "Config") -> list[int]:
    """The inputs of the network (x, the task parameters of an oracle, the context), its hidden units, its output."""
    return [1 + (3 if config.model.oracle else 0) + config.model.num_context, *config.model.hidden, 1]


def num_params(config: "Config") -> int:
    """The number of weights and biases of a network, and of context inputs whose start is learned."""
    context = config.model.num_context if config.model.context_learned else 0
    return sum((ins + 1) * outs for ins, outs in pairwise(layer_widths(config))) + context


def num_curvatures(config: "Config") -> int:
    """Curvatures of a run: none, one, or one for each inner step."""
    if config.inner.curvature == "none":
        return 0
    return config.inner.steps if config.inner.curvature_per_step else 1


def num_curvature_values(config: "Config") -> int:
    """The numbers of the curvatures of a run: a factor (n, n) for each axis of each parameter that adapts."""
    return num_curvatures(config) * sum(size**2 for axes in _adapted_axes(config) for size in axes)


def num_rule_params(config: "Config") -> int:
    """The parameters of the update rule of a run that grow with the network: an alpha of each parameter that adapts,
    and the factors of curvatures."""
    inner = config.inner
    count = num_curvature_values(config)
    if inner.alpha.per == "parameter":
        count += sum(map(math.prod, _adapted_axes(config))) * (inner.steps if inner.alpha.per_step else 1)
    return count


def checkpoint_bytes(config: "Config") -> int:
    """Bytes of a checkpoint's learned values and their moments."""
    values = VALUES_PER_PARAM * (num_params(config) + num_rule_params(config)) * len(config.seeds)
    return values * (8 if config.run.dtype == "float64" else 4)


def _adapted_axes(config: "Config") -> list[Axes]:
    """The axes of each parameter that adapts."""
    *body, head = ([(ins, outs), (outs,)] for ins, outs in pairwise(layer_widths(config)))
    context: list[Axes] = [(config.model.num_context,)] if config.model.num_context else []
    parts = {"body": [axes for layer in body for axes in layer], "head": head, "context": context}
    if config.inner.head == "ridge":
        parts["head"] = []  # solved for
    return [axes for name, part in parts.items() if config.inner.adapt in ("all", name) for axes in part]


def _too_large(config: "Config") -> str:
    size, limit = checkpoint_bytes(config) / 2**20, MAX_CHECKPOINT_BYTES / 2**20
    inner = config.inner
    smaller = {
        "fewer run.seeds": len(config.seeds) > 1,
        "a lower model.num_context": config.model.num_context > 0,
        "fewer inner.steps": inner.has_per_step_params,
        "fewer alphas by inner.alpha.per": inner.alpha.per == "parameter",
        "inner.curvature: none": inner.curvature != "none",
    }
    others = "".join(f" or {words}" for words, can_help in smaller.items() if can_help)
    return f"makes checkpoints of {size:,.1f} MiB, more than {limit:,.0f} MiB; try smaller layers{others}"


SIZE_CONSTRAINTS = [
    Constraint(
        "model.hidden",
        [
            "model.num_context",
            "model.context_learned",
            "model.oracle",
            "inner.adapt",
            "inner.head",
            "inner.steps",
            "inner.curvature",
            "inner.curvature_per_step",
            "inner.alpha.per",
            "inner.alpha.per_step",
            "run.seed",
            "run.seeds",
            "run.dtype",
        ],
        lambda c: checkpoint_bytes(c) > MAX_CHECKPOINT_BYTES,
        _too_large,
    ),
]
