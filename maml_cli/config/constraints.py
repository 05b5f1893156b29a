"""Combinations of settings that make no sense, each at the key to blame and with the reason.

What cannot be tells why it must be otherwise; what is merely without effect is refused as well, so that nobody takes
it for a result.
"""

from collections.abc import Callable, Iterator
from typing import Any

Config = Any  # that of maml_cli.config, which asks this module whether it makes sense

Constraint = tuple[str, Callable[[Config], bool], str]


def violations(config: Config) -> Iterator[tuple[str, str]]:
    """The key and the reason of each combination in `config` that makes no sense."""
    for key, applies, reason in CONSTRAINTS:
        if applies(config):
            yield key, reason


def _not_differentiated(config: Config) -> bool:
    """Whether no derivative is taken through the inner loop."""
    return bool(config.outer.meta_gradient != "query")


def _implicit(config: Config) -> bool:
    return bool(config.inner.order == "implicit")


NOT_LEARNED = "has no effect: alpha.learned is false"
NOT_DIFFERENTIATED = "the meta-gradient of Reptile and of joint training does not differentiate the inner loop"

CONSTRAINTS: list[Constraint] = [
    ("tasks.x", lambda c: c.tasks.x[0] == c.tasks.x[1], "must be [low, high] with low below high"),
    *(
        (
            f"inner.alpha.{key}",
            lambda c, key=key: not c.inner.alpha.learned and bool(getattr(c.inner.alpha, key)),
            NOT_LEARNED,
        )
        for key in ("optimizer", "lr", "per_step")
    ),
    ("inner.alpha.sign", lambda c: c.inner.alpha.sign == "positive" and not c.inner.alpha.learned, NOT_LEARNED),
    ("inner.alpha.per", lambda c: c.inner.alpha.per != "scalar" and not c.inner.alpha.learned, NOT_LEARNED),
    (
        "inner.alpha.after_last_step",
        lambda c: c.inner.alpha.after_last_step is not None and not c.inner.has_per_step_params,
        "has no effect: no inner step has an alpha or a curvature of its own",
    ),
    (
        "inner.curvature_per_step",
        lambda c: c.inner.curvature_per_step and c.inner.curvature == "none",
        "has no effect: inner.curvature is none",
    ),
    (
        "inner.adapt",
        lambda c: c.inner.adapt == "body" and not c.model.hidden,
        "body has nothing to adapt: model.hidden is empty",
    ),
    (
        "inner.adapt",
        lambda c: c.inner.adapt == "context" and not c.model.num_context,
        "context has nothing to adapt: model.num_context is 0",
    ),
    (
        "model.num_context",
        lambda c: c.model.num_context > 0 and c.inner.adapt in ("head", "body"),
        "has no effect: it does not adapt (inner.adapt), and stays zero",
    ),
    (
        "model.oracle",
        lambda c: c.model.oracle and c.tasks.offset[0] < c.tasks.offset[1],
        "must be false where tasks.offset varies: it is told amplitude, frequency and phase",
    ),
    (
        "inner.first_order_until",
        lambda c: c.inner.first_order_until > 0 and c.inner.order != "second",
        "has no effect: inner.order is not second",
    ),
    (
        "outer.multi_step_loss_until",
        lambda c: c.outer.multi_step_loss_until > 0 and c.inner.steps == 1,
        "has no effect: inner.steps is 1",
    ),
    (
        "tasks.query_sampling",
        lambda c: c.tasks.query_sampling == "stratified" and c.tasks.num_query == 1,
        "has no effect: tasks.num_query is 1",
    ),
    (
        "inner.proximal",
        lambda c: c.inner.proximal * c.inner.alpha.init >= 2,
        "must be below 2 / alpha.init, or the proximal term alone makes every step longer than the one before",
    ),
    # A minimum, and its derivative.
    (
        "inner.cg_steps",
        lambda c: c.inner.cg_steps != 5 and not _implicit(c),
        "has no effect: inner.order is not implicit",
    ),
    (
        "inner.proximal",
        lambda c: _implicit(c) and not c.inner.proximal,
        "must be greater than 0: inner.order is implicit",
    ),
    (
        "inner.optimizer",
        lambda c: _implicit(c) and c.inner.optimizer == "adam",
        "must be sgd where inner.order is implicit: Adam goes around a minimum, and not into it",
    ),
    (
        "inner.loss",
        lambda c: _implicit(c) and c.inner.loss == "l1",
        "must be mse or huber where inner.order is implicit: an implicit gradient needs curvature",
    ),
    (
        "inner.order",
        lambda c: _implicit(c) and (c.inner.alpha.learned or c.inner.curvature != "none"),
        "implicit learns neither alpha nor curvature: a minimum does not depend on the way to it",
    ),
    (
        "outer.multi_step_loss_until",
        lambda c: _implicit(c) and c.outer.multi_step_loss_until > 0,
        "has no effect: inner.order is implicit",
    ),
    # Reptile and joint training.
    (
        "inner.order",
        lambda c: _not_differentiated(c) and c.inner.order != "second",
        f"has no effect: {NOT_DIFFERENTIATED}",
    ),
    (
        "outer.multi_step_loss_until",
        lambda c: _not_differentiated(c) and c.outer.multi_step_loss_until > 0,
        f"has no effect: {NOT_DIFFERENTIATED}",
    ),
    (
        "inner.first_order_until",
        lambda c: _not_differentiated(c) and c.inner.first_order_until > 0,
        f"has no effect: {NOT_DIFFERENTIATED}",
    ),
    (
        "inner.alpha.learned",
        lambda c: _not_differentiated(c) and c.inner.alpha.learned,
        f"must be false: {NOT_DIFFERENTIATED}",
    ),
    (
        "inner.curvature",
        lambda c: _not_differentiated(c) and c.inner.curvature != "none",
        f"must be none: {NOT_DIFFERENTIATED}",
    ),
    (
        "inner.adapt",
        lambda c: c.outer.meta_gradient == "reptile" and c.inner.adapt != "all",
        "must be all: Reptile learns only what adapts",
    ),
    (
        "model.num_context",
        lambda c: c.outer.meta_gradient == "joint" and c.model.num_context > 0,
        "has no effect: without adapting, in joint training, a context stays zero",
    ),
    (
        "run.seed",
        lambda c: isinstance(c.run.seeds, list) and c.run.seed != 0,
        "has no effect: run.seeds lists the seeds",
    ),
    (
        "run.seeds",
        lambda c: isinstance(c.run.seeds, int) and c.run.seed + c.run.seeds > 2**63,
        "would go beyond the largest seed, 2^63 - 1",
    ),
    # What a number can hold.
    (
        "inner.alpha.init",
        lambda c: c.run.dtype == "float32" and c.inner.alpha.init > 3e38,
        "must be at most 3e38, the range of float32",
    ),
    (
        "run.dtype",
        lambda c: c.run.device == "mps" and c.run.dtype == "float64",
        "must be float32 on mps, which has no float64",
    ),
]
