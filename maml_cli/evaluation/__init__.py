"""Trained runs on held-out tasks: errors after every inner step, baselines, intervals and comparisons."""

from maml_cli.evaluation.compare import Comparison, compare_runs
from maml_cli.evaluation.evaluate import (
    Errors,
    Evaluation,
    PointErrors,
    Protocol,
    Statistic,
    finite_or_none,
    learner_errors,
    mean,
    sample_test_tasks,
    statistic,
    summarise_tasks,
    t_interval,
)
from maml_cli.evaluation.trained_run import TaskFit, TrainedRun, evaluate_run, fit_tasks, open_run, write_result

__all__ = [
    "Comparison",
    "Errors",
    "Evaluation",
    "PointErrors",
    "Protocol",
    "Statistic",
    "TaskFit",
    "TrainedRun",
    "compare_runs",
    "evaluate_run",
    "finite_or_none",
    "fit_tasks",
    "learner_errors",
    "mean",
    "open_run",
    "sample_test_tasks",
    "statistic",
    "summarise_tasks",
    "t_interval",
    "write_result",
]
