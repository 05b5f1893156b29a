"""The table of task families. To add a family, write its module and give it a row here."""

from collections.abc import Callable, Mapping
from typing import Any

from maml_cli.tasks.family import TaskFamily
from maml_cli.tasks.sine_family import SineFamily

FAMILIES: dict[str, Callable[[Mapping[str, Any]], TaskFamily]] = {"sine": SineFamily.from_values}
"""Values of `tasks.family`: the values of the section `tasks` of a config -> the family."""
