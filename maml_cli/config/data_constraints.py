"""Constraints on the family `data`, whose tasks are the user's own curves."""

from operator import attrgetter
from typing import TYPE_CHECKING

from maml_cli.config.constraint import Constraint
from maml_cli.config.data_schema import Data
from maml_cli.config.tasks_schema import Tasks
from maml_cli.formulas import DATA

if TYPE_CHECKING:
    from maml_cli.config.schema import Config

FOR_FUNCTIONS = ("parameters", "mixture", "x", "test_x", "noise", "relative_noise", "count", "query_sampling")
"""Keys of `tasks` that only families of functions have; those of the family sine are refused with its others."""


DEFAULTS = Tasks()


def _is_data(config: "Config") -> bool:
    return config.tasks.family == DATA


def _differs(config: "Config", key: str) -> bool:
    return bool(attrgetter(key)(config.tasks) != attrgetter(key)(DEFAULTS))


DATA_CONSTRAINTS = [
    Constraint(
        "tasks.file",
        ["tasks.family"],
        lambda c: _is_data(c) and not c.tasks.file,
        "must name a table with a row for each point, where tasks.family is data",
    ),
    *(
        Constraint(
            f"tasks.{key}",
            ["tasks.family"],
            lambda c, key=key: not _is_data(c) and _differs(c, key),  # type: ignore[misc]
            "has no effect: tasks.family is not data",
        )
        for key in ("file", *(f"data.{name}" for name in Data.model_fields))
    ),
    *(
        Constraint(
            f"tasks.{key}",
            ["tasks.family"],
            lambda c, key=key: _is_data(c) and _differs(c, key),  # type: ignore[misc]
            "has no effect: the points are those of tasks.file",
        )
        for key in FOR_FUNCTIONS
    ),
    Constraint(
        "tasks.data.test",
        ["tasks.data.validation"],
        lambda c: c.tasks.data.validation + c.tasks.data.test > 1,
        "must be at most 1 with tasks.data.validation: the rest is for training",
    ),
]
