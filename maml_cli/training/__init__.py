"""A training from start to stop: plan, outer loop, log, signals, progress and resuming."""

from maml_cli.training.loop import TrainResult, train
from maml_cli.training.plan import TrainPlan, plan_training, require_packages
from maml_cli.training.processes import Processes, join_processes
from maml_cli.training.progress import count_progress, evaluation_progress
from maml_cli.training.recorder import Hooks, Observe, Observer, observe_nothing
from maml_cli.training.run_groups import RunGroup
from maml_cli.training.session import STOPPED_BY_CALLER, SessionResult, run_session
from maml_cli.training.signals import catch_stop
from maml_cli.training.snapshot import init_state, restore_state, snapshot
from maml_cli.training.summary import learner_summary, training_summary

__all__ = [
    "STOPPED_BY_CALLER",
    "Hooks",
    "Observe",
    "Observer",
    "Processes",
    "RunGroup",
    "SessionResult",
    "TrainPlan",
    "TrainResult",
    "catch_stop",
    "count_progress",
    "evaluation_progress",
    "init_state",
    "join_processes",
    "learner_summary",
    "observe_nothing",
    "plan_training",
    "require_packages",
    "restore_state",
    "run_session",
    "snapshot",
    "train",
    "training_summary",
]
