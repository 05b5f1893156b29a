"""Constraints across the keys of a config, each at the key to blame and with its reason.

A setting without effect is refused as well, so that nobody takes its results for those of the setting.
"""

from typing import TYPE_CHECKING

from maml_cli.config.constraint import Constraint, Violation, without_effect
from maml_cli.config.data_constraints import DATA_CONSTRAINTS
from maml_cli.config.engine_support import ENGINE_CONSTRAINTS
from maml_cli.config.family_constraints import FAMILY_CONSTRAINTS
from maml_cli.config.numeric_constraints import NUMERIC_CONSTRAINTS
from maml_cli.config.ridge_constraints import RIDGE_CONSTRAINTS
from maml_cli.config.sizes import SIZE_CONSTRAINTS

if TYPE_CHECKING:
    from maml_cli.config.schema import Config


def violations(config: "Config") -> list[Violation]:
    """Every constraint that `config` violates, in the order of CONSTRAINTS."""
    return [
        Violation(key, depends_on, reason if isinstance(reason, str) else reason(config))
        for key, depends_on, is_violated, reason in CONSTRAINTS
        if is_violated(config)
    ]


def _is_implicit(config: "Config") -> bool:
    return config.inner.order == "implicit"


def _is_undifferentiated(config: "Config") -> bool:
    """Whether the meta-gradient has no derivative through the inner loop."""
    return config.outer.meta_gradient != "query"


def _num_seeds(config: "Config") -> int:
    seeds = config.run.seeds
    return len(seeds) if isinstance(seeds, list) else seeds or 1


UNDIFFERENTIATED = "the meta-gradient of Reptile and of joint training does not differentiate the inner loop"

FIXED_ALPHA = without_effect(
    {
        "inner.alpha.optimizer": None,
        "inner.alpha.lr": None,
        "inner.alpha.per_step": False,
        "inner.alpha.sign": "free",
        "inner.alpha.per": "scalar",
    },
    lambda c: not c.inner.alpha.learned,
    ["inner.alpha.learned"],
    "inner.alpha.learned is false",
)

RANDOM_ALPHA = Constraint(
    "inner.alpha.init",
    ["inner.alpha.learned"],
    lambda c: not c.inner.alpha.learned and c.inner.alpha.init_range[0] < c.inner.alpha.init_range[1],
    "must be a number where inner.alpha.learned is false: a range is of random values from which learning starts",
)

IMPLICIT = [
    *without_effect(
        {"inner.cg_steps": 5}, lambda c: not _is_implicit(c), ["inner.order"], "inner.order is not implicit"
    ),
    Constraint(
        "inner.proximal",
        ["inner.order"],
        lambda c: _is_implicit(c) and c.inner.proximal == 0,
        "must be greater than 0 where inner.order is implicit: without a proximal term the inner minimum does not "
        "depend on the initial parameters",
    ),
    Constraint(
        "inner.optimizer",
        ["inner.order"],
        lambda c: _is_implicit(c) and c.inner.optimizer != "sgd",
        "must be sgd where inner.order is implicit: gradient descent converges to the inner minimum, while Adam "
        "without momentum circles it",
    ),
    Constraint(
        "inner.loss",
        ["inner.order"],
        lambda c: _is_implicit(c) and c.inner.loss not in ("mse", "half_mse", "huber"),
        "must be mse, half_mse or huber where inner.order is implicit: implicit gradients need curvature, l1 has none",
    ),
    Constraint(
        "inner.order",
        ["inner.alpha.learned", "inner.curvature"],
        lambda c: _is_implicit(c) and (c.inner.alpha.learned or c.inner.curvature != "none"),
        "implicit cannot learn inner.alpha or inner.curvature: the inner minimum does not depend on the path to it",
    ),
    *without_effect({"outer.multi_step_loss_until": 0}, _is_implicit, ["inner.order"], "inner.order is implicit"),
]

REPTILE_AND_JOINT = [
    *without_effect(
        {"inner.order": "second", "outer.multi_step_loss_until": 0, "inner.first_order_until": 0},
        _is_undifferentiated,
        ["outer.meta_gradient"],
        UNDIFFERENTIATED,
    ),
    Constraint(
        "inner.alpha.learned",
        ["outer.meta_gradient"],
        lambda c: _is_undifferentiated(c) and c.inner.alpha.learned,
        f"must be false: {UNDIFFERENTIATED}",
    ),
    Constraint(
        "inner.curvature",
        ["outer.meta_gradient"],
        lambda c: _is_undifferentiated(c) and c.inner.curvature != "none",
        f"must be none: {UNDIFFERENTIATED}",
    ),
    Constraint(
        "inner.adapt",
        ["outer.meta_gradient"],
        lambda c: c.outer.meta_gradient == "reptile" and c.inner.adapt != "all",
        "must be all: Reptile trains only the parameters that adapt",
    ),
    Constraint(
        "model.num_context",
        ["outer.meta_gradient"],
        lambda c: c.outer.meta_gradient == "joint" and c.model.num_context > 0,
        "has no effect: joint training does not adapt the context, which without that is no more than a bias",
    ),
]

CONSTRAINTS = [
    *FAMILY_CONSTRAINTS,
    *DATA_CONSTRAINTS,
    *NUMERIC_CONSTRAINTS,
    *SIZE_CONSTRAINTS,
    *without_effect(
        {"tasks.query_sampling": "uniform"},
        lambda c: c.tasks.num_query == 1,
        ["tasks.num_query"],
        "tasks.num_query is 1",
    ),
    Constraint(
        "model.num_context",
        ["inner.adapt"],
        lambda c: c.model.num_context > 0 and c.inner.adapt not in ("all", "context"),
        "has no effect: inner.adapt leaves the context as it is, where it is no more than a bias",
    ),
    *without_effect(
        {"model.context_learned": False},
        lambda c: not c.model.num_context,
        ["model.num_context"],
        "model.num_context is 0",
    ),
    Constraint(
        "model.oracle",
        ["tasks.offset"],
        lambda c: c.model.oracle and c.tasks.offset[0] < c.tasks.offset[1],
        "must be false where tasks.offset varies: the offset is not among the inputs of an oracle",
    ),
    Constraint(
        "inner.adapt",
        ["model.hidden"],
        lambda c: c.inner.adapt == "body" and not c.model.hidden,
        "body has nothing to adapt: model.hidden is empty",
    ),
    Constraint(
        "inner.adapt",
        ["model.num_context"],
        lambda c: c.inner.adapt == "context" and not c.model.num_context,
        "context has nothing to adapt: model.num_context is 0",
    ),
    Constraint(
        "inner.clip_value",
        ["inner.clip_norm"],
        lambda c: c.inner.clip_value is not None and c.inner.clip_norm is not None,
        "must be null where inner.clip_norm is a number: gradients are clipped by their norm or by their entries",
    ),
    *without_effect(
        {"inner.curvature_per_step": False},
        lambda c: c.inner.curvature == "none",
        ["inner.curvature"],
        "inner.curvature is none",
    ),
    Constraint(
        "inner.proximal",
        ["inner.alpha.init", "inner.alpha.scale", "inner.momentum"],
        lambda c: c.inner.proximal * c.inner.alpha.init_range[1] * c.inner.alpha.scale >= 2 * (1 + c.inner.momentum),
        lambda c: (
            f"must be below {'2 * (1 + inner.momentum)' if c.inner.momentum else '2'} / "
            f"{'inner.alpha.init' if c.inner.alpha.scale == 1 else '(inner.alpha.init * scale)'}, or inner steps on "
            f"the proximal term alone diverge"
        ),
    ),
    *without_effect(
        {"inner.first_order_until": 0},
        lambda c: c.inner.order != "second",
        ["inner.order"],
        "inner.order is not second",
    ),
    *FIXED_ALPHA,
    RANDOM_ALPHA,
    *without_effect(
        {"inner.alpha.after_last_step": None},
        lambda c: not c.inner.has_per_step_params,
        ["inner.alpha.per_step", "inner.curvature_per_step"],
        "neither inner.alpha.per_step nor inner.curvature_per_step is true",
    ),
    *without_effect(
        {"outer.multi_step_loss_until": 0}, lambda c: c.inner.steps == 1, ["inner.steps"], "inner.steps is 1"
    ),
    *IMPLICIT,
    *REPTILE_AND_JOINT,
    *RIDGE_CONSTRAINTS,
    *ENGINE_CONSTRAINTS,
    Constraint(
        "outer.task_blocks",
        ["outer.tasks_per_step"],
        lambda c: c.outer.task_blocks is not None and c.outer.task_blocks > c.outer.tasks_per_step,
        lambda c: f"must be at most outer.tasks_per_step, which is {c.outer.tasks_per_step:,}",
    ),
    *without_effect({"run.side_by_side": True}, lambda c: _num_seeds(c) == 1, ["run.seeds"], "there is one seed"),
    *without_effect(
        {"run.seed": 0}, lambda c: isinstance(c.run.seeds, list), ["run.seeds"], "run.seeds lists the seeds"
    ),
    *without_effect(
        {"run.init_sha256": None}, lambda c: c.run.init_from is None, ["run.init_from"], "run.init_from is null"
    ),
    Constraint(
        "run.seeds",
        ["run.seed"],
        lambda c: isinstance(c.run.seeds, int) and c.run.seed + c.run.seeds > 2**63,
        "would exceed the largest seed, 2^63 - 1",
    ),
]
