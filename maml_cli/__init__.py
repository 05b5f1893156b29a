"""Model-agnostic meta-learning of functions of one variable, from the command line (`maml`) and from Python.

import maml_cli as maml

run = maml.load("best-5shot")            # a published run, a run directory or a checkpoint
fitted = run.adapt(x, y)                 # support points: lists, numpy arrays or tensors
y_new = fitted.predict(x_new)

Everything heavy, such as PyTorch, is imported when it is first used.
"""

from typing import TYPE_CHECKING

from maml_cli.lazy import lazy_attributes

if TYPE_CHECKING:
    from maml_cli.adaptation import Fitted
    from maml_cli.api import adapt, evaluate, families, load, presets, train
    from maml_cli.config import Config
    from maml_cli.errors import UserError
    from maml_cli.evaluation import EvaluationResult, TrainedRun
    from maml_cli.formulas import Family, Normal, Uniform, register_family

__version__ = "0.1.0"

__all__ = [
    "Config",
    "EvaluationResult",
    "Family",
    "Fitted",
    "Normal",
    "TrainedRun",
    "Uniform",
    "UserError",
    "__version__",
    "adapt",
    "evaluate",
    "families",
    "load",
    "presets",
    "register_family",
    "train",
]

_MODULES = {
    "adaptation": ["Fitted"],
    "api": ["adapt", "evaluate", "families", "load", "presets", "train"],
    "config": ["Config"],
    "errors": ["UserError"],
    "evaluation": ["EvaluationResult", "TrainedRun"],
    "formulas": ["Family", "Normal", "Uniform", "register_family"],
}
__getattr__ = lazy_attributes(__name__, {name: module for module, names in _MODULES.items() for name in names})
