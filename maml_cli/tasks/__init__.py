"""Task families: distributions over functions, samplers of their points, and predictors that need no meta-learning."""

from maml_cli.tasks.families import make_family
from maml_cli.tasks.family import (
    KIND,
    Approximation,
    Baseline,
    BaselinePredictors,
    Predictor,
    Range,
    SampledTasks,
    TaskFamily,
    TaskFunctions,
    make_generator,
)
from maml_cli.tasks.parametric_family import ParametricFamily
from maml_cli.tasks.sampler import make_bank
from maml_cli.tasks.sine_family import SineFamily
from maml_cli.tasks.sinusoids import Sinusoids, with_task_parameters

__all__ = [
    "KIND",
    "Approximation",
    "Baseline",
    "BaselinePredictors",
    "ParametricFamily",
    "Predictor",
    "Range",
    "SampledTasks",
    "SineFamily",
    "Sinusoids",
    "TaskFamily",
    "TaskFunctions",
    "make_bank",
    "make_family",
    "make_generator",
    "with_task_parameters",
]
