"""Task families: distributions over functions, samplers of their points, and predictors that need no meta-learning."""

from maml_cli.tasks.family import SampledTasks, make_generator
from maml_cli.tasks.sinusoid_baselines import Predictor, best_nonadaptive_error
from maml_cli.tasks.sinusoids import SineFamily, Sinusoids, with_task_parameters

__all__ = [
    "Predictor",
    "SampledTasks",
    "SineFamily",
    "Sinusoids",
    "best_nonadaptive_error",
    "make_generator",
    "with_task_parameters",
]
