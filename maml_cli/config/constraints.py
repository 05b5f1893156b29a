"""Constraints across the keys of a config, each at the key to blame and with its reason.

A setting without effect is refused as well, so that nobody takes its results for those of the setting.
"""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING

from maml_cli.config.constraint import Constraint, Violation
from maml_cli.config.data_constraints import DATA_CONSTRAINTS
from maml_cli.config.engine_support import ENGINE_CONSTRAINTS
from maml_cli.config.family_constraints import FAMILY_CONSTRAINTS
from maml_cli.config.numeric_constraints import NUMERIC_CONSTRAINTS
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


def _without_effect(
    defaults: Mapping[str, object], is_without: "Callable[[Config], bool]", depends_on: list[str], reason: str
) -> list[Constraint]:
    """Constraints that refuse values other than the `defaults` of settings that have no effect on some configs."""

    def constraint(key: str, default: object) -> Constraint:
        read = attrgetter(key)
        return Constraint(key, depends_on, lambda c: is_without(c) and read(c) != default, f"has no effect: {reason}")

    return [constraint(key, default) for key, default in defaults.items()]


UNDIFFERENTIATED = "the meta-gradient of Reptile and of joint training does not differentiate the inner loop"

FIXED_ALPHA = _without_effect(
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

IMPLICIT = [
    *_without_effect(
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
    *_without_effect({"outer.multi_step_loss_until": 0}, _is_implicit, ["inner.order"], "inner.order is implicit"),
]

REPTILE_AND_JOINT = [
    *_without_effect(
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
        "has no effect: joint training does not adapt, so that the context stays zero",
    ),
]


def _is_ridge(config: "Config") -> bool:
    return config.inner.head == "ridge"


RIDGE = [
    *_without_effect(
        {"inner.ridge.init": 0.02, "inner.ridge.learned": True, "inner.ridge.per": "scalar"},
        lambda c: not _is_ridge(c),
        ["inner.head"],
        "inner.head is not ridge",
    ),
    *_without_effect(
        {
            "inner.steps": 1,
            "inner.optimizer": "sgd",
            "inner.clip_norm": None,
            "inner.clip_value": None,
            "inner.curvature": "none",
            "inner.order": "second",
            "inner.first_order_until": 0,
            "inner.alpha.learned": False,
            "inner.alpha.init": 0.01,
            "inner.alpha.scale": 1.0,
        },
        lambda c: c.inner.is_closed_form,
        ["inner.head", "inner.adapt"],
        "inner.head: ridge with inner.adapt: head takes no gradient steps",
    ),
    Constraint(
        "inner.head",
        ["inner.adapt"],
        lambda c: _is_ridge(c) and c.inner.adapt not in ("all", "head"),
        "ridge solves for the head in every inner step: inner.adapt must be all, for gradient steps on the body as "
        "well, or head",
    ),
    Constraint(
        "inner.head",
        ["inner.loss"],
        lambda c: _is_ridge(c) and c.inner.loss != "mse",
        "ridge is the minimum of squared errors: inner.loss must be mse",
    ),
    Constraint(
        "inner.head",
        ["outer.meta_gradient", "inner.order"],
        lambda c: _is_ridge(c) and (_is_undifferentiated(c) or _is_implicit(c)),
        "ridge learns by differentiating its solution: outer.meta_gradient must be query, inner.order second or first",
    ),
    Constraint(
        "inner.head",
        ["inner.proximal", "model.num_context"],
        lambda c: _is_ridge(c) and (c.inner.proximal > 0 or c.model.num_context > 0),
        "ridge takes neither inner.proximal nor model.num_context",
    ),
    Constraint(
        "inner.head",
        ["inner.adapt", "model.hidden"],
        lambda c: _is_ridge(c) and c.inner.adapt == "all" and not c.model.hidden,
        "ridge without hidden layers has no body that takes gradient steps: inner.adapt must be head",
    ),
]

CONSTRAINTS = [
    *FAMILY_CONSTRAINTS,
    *DATA_CONSTRAINTS,
    *NUMERIC_CONSTRAINTS,
    *SIZE_CONSTRAINTS,
    *_without_effect(
        {"tasks.query_sampling": "uniform"},
        lambda c: c.tasks.num_query == 1,
        ["tasks.num_query"],
        "tasks.num_query is 1",
    ),
    Constraint(
        "model.num_context",
        ["inner.adapt"],
        lambda c: c.model.num_context > 0 and c.inner.adapt not in ("all", "context"),
        "has no effect: inner.adapt leaves the context at zero",
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
    *_without_effect(
        {"inner.curvature_per_step": False},
        lambda c: c.inner.curvature == "none",
        ["inner.curvature"],
        "inner.curvature is none",
    ),
    Constraint(
        "inner.proximal",
        ["inner.alpha.init", "inner.alpha.scale"],
        lambda c: c.inner.proximal * c.inner.alpha.init * c.inner.alpha.scale >= 2,
        lambda c: (
            f"must be below 2 / {'inner.alpha.init' if c.inner.alpha.scale == 1 else '(inner.alpha.init * scale)'}, or "
            f"inner steps on the proximal term alone diverge"
        ),
    ),
    *_without_effect(
        {"inner.first_order_until": 0},
        lambda c: c.inner.order != "second",
        ["inner.order"],
        "inner.order is not second",
    ),
    *FIXED_ALPHA,
    *_without_effect(
        {"inner.alpha.after_last_step": None},
        lambda c: not c.inner.has_per_step_params,
        ["inner.alpha.per_step", "inner.curvature_per_step"],
        "neither inner.alpha.per_step nor inner.curvature_per_step is true",
    ),
    *_without_effect(
        {"outer.multi_step_loss_until": 0}, lambda c: c.inner.steps == 1, ["inner.steps"], "inner.steps is 1"
    ),
    *IMPLICIT,
    *REPTILE_AND_JOINT,
    *RIDGE,
    *ENGINE_CONSTRAINTS,
    Constraint(
        "outer.task_blocks",
        ["outer.tasks_per_step"],
        lambda c: c.outer.task_blocks is not None and c.outer.task_blocks > c.outer.tasks_per_step,
        lambda c: f"must be at most outer.tasks_per_step, which is {c.outer.tasks_per_step:,}",
    ),
    *_without_effect({"run.side_by_side": True}, lambda c: _num_seeds(c) == 1, ["run.seeds"], "there is one seed"),
    *_without_effect(
        {"run.seed": 0}, lambda c: isinstance(c.run.seeds, list), ["run.seeds"], "run.seeds lists the seeds"
    ),
    *_without_effect(
        {"run.init_sha256": None}, lambda c: c.run.init_from is None, ["run.init_from"], "run.init_from is null"
    ),
    Constraint(
        "run.seeds",
        ["run.seed"],
        lambda c: isinstance(c.run.seeds, int) and c.run.seed + c.run.seeds > 2**63,
        "would exceed the largest seed, 2^63 - 1",
    ),
]
