"""Task families: distributions over functions, samplers of their points, and predictors that need no meta-learning."""

from maml_cli.tasks.families import FAMILIES
from maml_cli.tasks.family import (
    Baseline,
    BaselinePredictors,
    Omitted,
    Predictor,
    Range,
    SampledTasks,
    TaskFamily,
    make_generator,
)
from maml_cli.tasks.sine_family import SineFamily
from maml_cli.tasks.sinusoids import Sinusoids, with_task_parameters

__all__ = [
    "FAMILIES",
    "Baseline",
    "BaselinePredictors",
    "Omitted",
    "Predictor",
    "Range",
    "SampledTasks",
    "SineFamily",
    "Sinusoids",
    "TaskFamily",
    "make_generator",
    "with_task_parameters",
]
