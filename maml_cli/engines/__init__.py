"""Ways to take outer steps, all with the same meta-gradient; the owner of all mutable training state."""

from maml_cli.engines.optimizers import OPTIMIZERS, OuterOptimizer
from maml_cli.engines.outer_step import Engine, StepResult, TrainState, take_outer_step
from maml_cli.engines.registry import choose_engine

__all__ = ["OPTIMIZERS", "Engine", "OuterOptimizer", "StepResult", "TrainState", "choose_engine", "take_outer_step"]
