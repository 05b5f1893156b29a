"""A training from start to stop: the outer loop, its log, signals, progress and resuming."""

from maml_cli.training.loop import init_state
from maml_cli.training.progress import print_message
from maml_cli.training.session import SessionResult, TrainPlan, plan_training, run_session
from maml_cli.training.summary import training_summary

__all__ = [
    "SessionResult",
    "TrainPlan",
    "init_state",
    "plan_training",
    "print_message",
    "run_session",
    "training_summary",
]
