"""Constraints across the keys of a config, each at the key to blame and with its reason.

A setting without effect is refused as well, so that nobody takes its results for those of the setting.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from maml_cli.config.schema import Config


class Violation(NamedTuple):
    """A constraint that a config violates.

    key: the key to blame, such as `inner.alpha.per`.
    reason: words that follow the key in a message.
    """

    key: str
    reason: str


class Constraint(NamedTuple):
    """A constraint across keys.

    key: the key to blame.
    is_violated: whether a config violates it.
    reason: words that follow the key in a message.
    """

    key: str
    is_violated: "Callable[[Config], bool]"
    reason: str


def violations(config: "Config") -> Iterator[Violation]:
    """Every constraint that `config` violates, in the order of CONSTRAINTS."""
    for key, is_violated, reason in CONSTRAINTS:
        if is_violated(config):
            yield Violation(key, reason)


def _is_implicit(config: "Config") -> bool:
    return config.inner.order == "implicit"


def _is_undifferentiated(config: "Config") -> bool:
    """Whether the meta-gradient has no derivative through the inner loop."""
    return config.outer.meta_gradient != "query"


NOT_LEARNED = "has no effect: inner.alpha.learned is false"
NO_PER_STEP_PARAMS = "has no effect: neither inner.alpha.per_step nor inner.curvature_per_step is true"
UNDIFFERENTIATED = "the meta-gradient of Reptile and of joint training does not differentiate the inner loop"

WITHOUT_LEARNED_ALPHA = [
    Constraint(
        "inner.alpha.optimizer",
        lambda c: c.inner.alpha.optimizer is not None and not c.inner.alpha.learned,
        NOT_LEARNED,
    ),
    Constraint("inner.alpha.lr", lambda c: c.inner.alpha.lr is not None and not c.inner.alpha.learned, NOT_LEARNED),
    Constraint("inner.alpha.per_step", lambda c: c.inner.alpha.per_step and not c.inner.alpha.learned, NOT_LEARNED),
    Constraint("inner.alpha.sign", lambda c: c.inner.alpha.sign != "free" and not c.inner.alpha.learned, NOT_LEARNED),
    Constraint("inner.alpha.per", lambda c: c.inner.alpha.per != "scalar" and not c.inner.alpha.learned, NOT_LEARNED),
]

IMPLICIT = [
    Constraint(
        "inner.cg_steps",
        lambda c: c.inner.cg_steps != 5 and not _is_implicit(c),
        "has no effect: inner.order is not implicit",
    ),
    Constraint(
        "inner.proximal",
        lambda c: _is_implicit(c) and c.inner.proximal == 0,
        "must be greater than 0 where inner.order is implicit: without a proximal term the inner minimum does not "
        "depend on the initial parameters",
    ),
    Constraint(
        "inner.optimizer",
        lambda c: _is_implicit(c) and c.inner.optimizer == "adam",
        "must be sgd where inner.order is implicit: Adam without momentum circles the minimum instead of converging",
    ),
    Constraint(
        "inner.loss",
        lambda c: _is_implicit(c) and c.inner.loss == "l1",
        "must be mse or huber where inner.order is implicit: implicit gradients need curvature, and l1 has none",
    ),
    Constraint(
        "inner.order",
        lambda c: _is_implicit(c) and (c.inner.alpha.learned or c.inner.curvature != "none"),
        "implicit cannot learn inner.alpha or inner.curvature: the inner minimum does not depend on the path to it",
    ),
    Constraint(
        "outer.multi_step_loss_until",
        lambda c: _is_implicit(c) and c.outer.multi_step_loss_until > 0,
        "has no effect: inner.order is implicit",
    ),
]

REPTILE_AND_JOINT = [
    Constraint(
        "inner.order",
        lambda c: _is_undifferentiated(c) and c.inner.order != "second",
        f"has no effect: {UNDIFFERENTIATED}",
    ),
    Constraint(
        "outer.multi_step_loss_until",
        lambda c: _is_undifferentiated(c) and c.outer.multi_step_loss_until > 0,
        f"has no effect: {UNDIFFERENTIATED}",
    ),
    Constraint(
        "inner.first_order_until",
        lambda c: _is_undifferentiated(c) and c.inner.first_order_until > 0,
        f"has no effect: {UNDIFFERENTIATED}",
    ),
    Constraint(
        "inner.alpha.learned",
        lambda c: _is_undifferentiated(c) and c.inner.alpha.learned,
        f"must be false: {UNDIFFERENTIATED}",
    ),
    Constraint(
        "inner.curvature",
        lambda c: _is_undifferentiated(c) and c.inner.curvature != "none",
        f"must be none: {UNDIFFERENTIATED}",
    ),
    Constraint(
        "inner.adapt",
        lambda c: c.outer.meta_gradient == "reptile" and c.inner.adapt != "all",
        "must be all: Reptile trains only the parameters that adapt",
    ),
    Constraint(
        "model.num_context",
        lambda c: c.outer.meta_gradient == "joint" and c.model.num_context > 0,
        "has no effect: joint training does not adapt, so that the context stays zero",
    ),
]

CONSTRAINTS = [
    Constraint("tasks.x", lambda c: c.tasks.x[0] == c.tasks.x[1], "must be [low, high] with low below high"),
    Constraint(
        "tasks.query_sampling",
        lambda c: c.tasks.query_sampling == "stratified" and c.tasks.num_query == 1,
        "has no effect: tasks.num_query is 1",
    ),
    Constraint(
        "model.num_context",
        lambda c: c.model.num_context > 0 and c.inner.adapt in ("head", "body"),
        "has no effect: inner.adapt leaves the context at zero",
    ),
    Constraint(
        "model.oracle",
        lambda c: c.model.oracle and c.tasks.offset[0] < c.tasks.offset[1],
        "must be false where tasks.offset varies: the offset is not among the inputs of an oracle",
    ),
    Constraint(
        "inner.adapt",
        lambda c: c.inner.adapt == "body" and not c.model.hidden,
        "body has nothing to adapt: model.hidden is empty",
    ),
    Constraint(
        "inner.adapt",
        lambda c: c.inner.adapt == "context" and not c.model.num_context,
        "context has nothing to adapt: model.num_context is 0",
    ),
    Constraint(
        "inner.curvature_per_step",
        lambda c: c.inner.curvature_per_step and c.inner.curvature == "none",
        "has no effect: inner.curvature is none",
    ),
    Constraint(
        "inner.proximal",
        lambda c: c.inner.proximal * c.inner.alpha.init >= 2,
        "must be below 2 / inner.alpha.init, or inner steps on the proximal term alone diverge",
    ),
    Constraint(
        "inner.first_order_until",
        lambda c: c.inner.first_order_until > 0 and c.inner.order != "second",
        "has no effect: inner.order is not second",
    ),
    *WITHOUT_LEARNED_ALPHA,
    Constraint(
        "inner.alpha.after_last_step",
        lambda c: c.inner.alpha.after_last_step is not None and not c.inner.has_per_step_params,
        NO_PER_STEP_PARAMS,
    ),
    Constraint(
        "outer.multi_step_loss_until",
        lambda c: c.outer.multi_step_loss_until > 0 and c.inner.steps == 1,
        "has no effect: inner.steps is 1",
    ),
    *IMPLICIT,
    *REPTILE_AND_JOINT,
    Constraint(
        "run.seed",
        lambda c: isinstance(c.run.seeds, list) and c.run.seed != 0,
        "has no effect: run.seeds lists the seeds",
    ),
    Constraint(
        "run.seeds",
        lambda c: isinstance(c.run.seeds, int) and c.run.seed + c.run.seeds > 2**63,
        "would exceed the largest seed, 2^63 - 1",
    ),
    Constraint(
        "inner.alpha.init",
        lambda c: c.run.dtype == "float32" and c.inner.alpha.init > 3e38,
        "must be at most 3e38, the range of float32",
    ),
    Constraint(
        "run.dtype",
        lambda c: c.run.device == "mps" and c.run.dtype == "float64",
        "must be float32 on mps, which has no float64",
    ),
]
