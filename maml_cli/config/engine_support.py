"""Settings that engines do not support, as far as they follow from a config alone: its constraints refuse them.

`maml_cli.engines` adds what the machine lacks, such as a compiler. Names are listed by what is supported, so that a new
name is not computed as an old one.
"""

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from maml_cli.config.constraint import Constraint
from maml_cli.config.kernel_sizes import native_thread_bytes

if TYPE_CHECKING:
    from maml_cli.config.schema import Config

KERNEL_ACTIVATIONS = ("relu", "tanh", "sigmoid", "sin", "softplus", "silu", "gelu")
KERNEL_LOSSES = ("mse", "l1", "huber", "half_mse")
KERNEL_CLIPS = ("none", "norm", "value")
KERNEL_OPTIMIZERS = ("sgd", "adam", "adamw")
"""Names that the kernel has, in the order of its enumerations in network.h, rule.h and kernel.cpp."""

MAX_TASK_BYTES = 2**26
"""Largest working memory of one task in the kernel, 64 MiB.

The kernel is fast because a task stays in the processor's cache; beyond, PyTorch's batched products are as fast.
"""
MAX_UNROLLED_STEPS = 20
"""Inner steps, with those of conjugate gradients, up to which a graph is compiled in reasonable time."""


class Limit(NamedTuple):
    """A limit of an engine.

    depends_on: the keys of a config that decide whether it is exceeded.
    exceeded_by: config -> the setting that exceeds it, a noun phrase such as `inner.proximal = 1`; None if none does.
    """

    depends_on: list[str]
    exceeded_by: "Callable[[Config], str | None]"


def exceeded(limits: Sequence[Limit], config: "Config") -> Iterator[str]:
    """The settings of `config` that exceed `limits`."""
    return (setting for limit in limits if (setting := limit.exceeded_by(config)) is not None)


def _only(key: str, *supported: object) -> Limit:
    """A limit to the values `supported` of `key`."""
    read = attrgetter(key)

    def exceeded_by(config: "Config") -> str | None:
        value = read(config)
        text = f"{value:g}" if isinstance(value, float) else str(value).lower() if value is True else str(value)
        return None if value in supported else f"{key} = {text}"

    return Limit([key], exceeded_by)


def _other_optimizer(config: "Config") -> str | None:
    names = (config.outer.optimizer, config.inner.alpha.optimizer or config.outer.optimizer)
    return next((f"outer optimiser {name}" for name in names if name not in KERNEL_OPTIMIZERS), None)


def _large_task(config: "Config") -> str | None:
    size = native_thread_bytes(config)
    megabytes = f"{size / 2**20:,.0f} MiB of memory, more than {MAX_TASK_BYTES / 2**20:.0f} MiB"
    return f"tasks of {megabytes}" if size > MAX_TASK_BYTES else None


def _beside_a_curvature(config: "Config") -> str | None:
    curvature = config.inner.curvature
    settings = {key: attrgetter(key)(config) for key in ("inner.clip_value", "inner.proximal", "model.num_context")}
    key = next((key for key, value in settings.items() if value and curvature != "none"), None)
    return f"{key} = {settings[key]:g} with inner.curvature = {curvature}" if key else None


def _many_unrolled_steps(config: "Config") -> str | None:
    steps = config.inner.steps + (config.inner.cg_steps if config.inner.order == "implicit" else 0)
    return f"{steps} inner steps, more than {MAX_UNROLLED_STEPS} in one graph" if steps > MAX_UNROLLED_STEPS else None


def _varying_support(config: "Config") -> str | None:
    low, high = config.tasks.support_range
    return f"tasks.num_support = [{low}, {high}], a number that varies" if low < high else None


VARYING_SUPPORT = Limit(["tasks.num_support"], _varying_support)


def _multi_step_loss(config: "Config") -> str | None:
    until = config.outer.multi_step_loss_until
    return "outer.multi_step_loss_until, a loss that changes at every step" if until else None


ADJOINT_LIMITS = [
    _only("outer.meta_gradient", "query"),
    _only("inner.order", "second", "first"),
    _only("inner.optimizer", "sgd"),
    _only("inner.head", "gradient"),
    _only("inner.curvature", "none", "kronecker"),
    _only("inner.alpha.sign", "free", "positive"),
    _only("inner.alpha.scale", 1),
    _only("inner.proximal", 0),
    _only("model.num_context", 0),
]
"""Limits of the adjoint method, which `eager` and `compiled` do without where they are exceeded."""

KERNEL_ALSO = (
    "inner.head",
    "inner.optimizer",
    "inner.alpha.scale",
    "inner.proximal",
    "model.num_context",
    "outer.meta_gradient",
)
"""What the kernel supports beyond the adjoint method."""

ENGINE_LIMITS: dict[str, list[Limit]] = {
    "native": [
        *(limit for limit in ADJOINT_LIMITS if limit.depends_on[0] not in KERNEL_ALSO),
        _only("outer.meta_gradient", "query", "reptile", "joint"),
        Limit(["inner.clip_value", "inner.proximal", "model.num_context", "inner.curvature"], _beside_a_curvature),
        _only("inner.optimizer", "sgd", "adam"),
        _only("inner.ridge.noise", None),
        _only("outer.task_blocks", None),
        VARYING_SUPPORT,
        _only("model.activation", *KERNEL_ACTIVATIONS),
        _only("inner.loss", *KERNEL_LOSSES),
        Limit(["outer.optimizer", "inner.alpha.optimizer"], _other_optimizer),
        Limit(
            [
                "model.oracle",
                "model.num_context",
                "model.hidden",
                "model.activation",
                "tasks.num_support",
                "tasks.num_query",
                "inner.steps",
                "inner.optimizer",
                "inner.proximal",
                "inner.adapt",
                "inner.head",
                "inner.curvature",
                "inner.curvature_per_step",
                "inner.clip_norm",
                "inner.clip_value",
                "inner.momentum",
                "inner.alpha.per",
                "inner.alpha.per_step",
                "inner.alpha.learned",
                "outer.meta_gradient",
                "run.dtype",
            ],
            _large_task,
        ),
    ],
    "compiled": [
        _only("outer.task_blocks", None),
        VARYING_SUPPORT,
        Limit(["inner.steps", "inner.order", "inner.cg_steps"], _many_unrolled_steps),
        Limit(["outer.multi_step_loss_until"], _multi_step_loss),
    ],
}
"""Limits by engine; the others support every config."""

ENGINE_DEVICES = {"native": ("cpu",), "compiled": ("cpu", "cuda")}
"""Devices by engine; the others support every device."""


def _within_limit(engine: str, limit: Limit) -> Constraint:
    """The constraint that the config of a named engine is within one of its limits."""
    return Constraint(
        "run.engine",
        limit.depends_on,
        lambda c: c.run.engine == engine and limit.exceeded_by(c) is not None,
        lambda c: f"{engine} does not support {limit.exceeded_by(c)}; use auto",
    )


ENGINE_CONSTRAINTS = [
    *(_within_limit(name, limit) for name, limits in ENGINE_LIMITS.items() for limit in limits),
    Constraint(
        "run.engine",
        ["run.device"],
        lambda c: c.run.device not in ("auto", *ENGINE_DEVICES.get(c.run.engine, (c.run.device,))),
        lambda c: f"{c.run.engine} does not support device {c.run.device}; use auto",
    ),
]
