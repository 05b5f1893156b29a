"""Constraints on heads in closed form."""

from typing import TYPE_CHECKING

from maml_cli.config.constraint import Constraint, without_effect

if TYPE_CHECKING:
    from maml_cli.config.schema import Config


def _is_ridge(config: "Config") -> bool:
    return config.inner.head == "ridge"


RIDGE_CONSTRAINTS = [
    *without_effect(
        {
            "inner.ridge.init": 0.02,
            "inner.ridge.learned": True,
            "inner.ridge.per": "scalar",
            "inner.ridge.noise": None,
        },
        lambda c: not _is_ridge(c),
        ["inner.head"],
        "inner.head is not ridge",
    ),
    *without_effect(
        {
            "inner.steps": 1,
            "inner.optimizer": "sgd",
            "inner.momentum": 0.0,
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
        lambda c: _is_ridge(c) and (c.outer.meta_gradient != "query" or c.inner.order == "implicit"),
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
