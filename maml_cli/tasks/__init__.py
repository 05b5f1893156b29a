"""Task families: distributions over functions, samplers of their points, and predictors that need no meta-learning."""

from maml_cli.tasks.curves import Curves, Source, measure_curves, read_curves, source_of
from maml_cli.tasks.data_family import CurveSampler
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
    TestBlock,
    make_generator,
)
from maml_cli.tasks.parametric_family import ParametricFamily
from maml_cli.tasks.sampler import FUNCTION_GRID, make_bank
from maml_cli.tasks.scaling import Scaling, affine_map
from maml_cli.tasks.sine_family import SineFamily
from maml_cli.tasks.sinusoids import Sinusoids, with_task_parameters

__all__ = [
    "FUNCTION_GRID",
    "KIND",
    "Approximation",
    "Baseline",
    "BaselinePredictors",
    "CurveSampler",
    "Curves",
    "ParametricFamily",
    "Predictor",
    "Range",
    "SampledTasks",
    "Scaling",
    "SineFamily",
    "Sinusoids",
    "Source",
    "TaskFamily",
    "TaskFunctions",
    "TestBlock",
    "affine_map",
    "make_bank",
    "make_family",
    "make_generator",
    "measure_curves",
    "read_curves",
    "source_of",
    "with_task_parameters",
]
