"""Task families: distributions over functions, samplers of their points, and predictors that need no meta-learning."""

from collections.abc import Callable, Mapping
from typing import Any

from maml_cli.tasks.family import (
    Baseline,
    BaselinePredictors,
    Predictor,
    Range,
    SampledTasks,
    TaskFamily,
    make_generator,
)
from maml_cli.tasks.sine_family import SineFamily
from maml_cli.tasks.sinusoids import Sinusoids, with_task_parameters

FAMILIES: dict[str, Callable[[Mapping[str, Any]], TaskFamily]] = {"sine": SineFamily.from_values}
"""The task families by the name that a config gives them: values of its section `tasks` -> family."""

__all__ = [
    "FAMILIES",
    "Baseline",
    "BaselinePredictors",
    "Predictor",
    "Range",
    "SampledTasks",
    "SineFamily",
    "Sinusoids",
    "TaskFamily",
    "make_generator",
    "with_task_parameters",
]
