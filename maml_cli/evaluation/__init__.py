"""Trained runs on held-out tasks: errors after every inner step, baselines, intervals and comparisons."""

from maml_cli.evaluation.compare import Comparison, compare_runs
from maml_cli.evaluation.evaluate import Evaluation, learner_errors
from maml_cli.evaluation.fits import TaskFit, fit_tasks
from maml_cli.evaluation.held_out import Protocol, sample_test_tasks, sample_validation_tasks
from maml_cli.evaluation.memory import Lower, check_memory
from maml_cli.evaluation.progress import OnTasks, ignore_tasks
from maml_cli.evaluation.run_evaluation import LearnerStatistic, evaluate_run, learner_statistics, write_result
from maml_cli.evaluation.statistics import (
    Errors,
    PointErrors,
    Statistic,
    finite_or_none,
    mean,
    statistic,
    summarise_tasks,
    t_interval,
)
from maml_cli.evaluation.trained_run import TrainedRun, open_run

__all__ = [
    "Comparison",
    "Errors",
    "Evaluation",
    "LearnerStatistic",
    "Lower",
    "OnTasks",
    "PointErrors",
    "Protocol",
    "Statistic",
    "TaskFit",
    "TrainedRun",
    "check_memory",
    "compare_runs",
    "evaluate_run",
    "finite_or_none",
    "fit_tasks",
    "ignore_tasks",
    "learner_errors",
    "learner_statistics",
    "mean",
    "open_run",
    "sample_test_tasks",
    "sample_validation_tasks",
    "statistic",
    "summarise_tasks",
    "t_interval",
    "write_result",
]
