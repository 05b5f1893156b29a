"""Trained runs on held-out tasks: errors after every inner step, baselines, intervals and comparisons."""

from maml_cli.evaluation.compare import Comparison, check_families, compare_runs, measure_of
from maml_cli.evaluation.difference import KeyDifference, RunDifference, diff_runs
from maml_cli.evaluation.evaluate import Evaluation, KindErrors
from maml_cli.evaluation.exported_params import encode_params
from maml_cli.evaluation.fits import TaskFit, fit_tasks, fit_validation_tasks
from maml_cli.evaluation.held_out import Protocol, sample_test_tasks, sample_validation_tasks
from maml_cli.evaluation.landscape import Landscape, landscape, landscape_parameters
from maml_cli.evaluation.memory import Lower, check_memory
from maml_cli.evaluation.output_files import default_file
from maml_cli.evaluation.progress import OnTasks, ignore_tasks
from maml_cli.evaluation.results import EvaluationResult, by_step, plain
from maml_cli.evaluation.run_differences import NumericDifference, numeric_difference
from maml_cli.evaluation.run_evaluation import (
    evaluate_learner,
    evaluate_run,
    learner_task_errors,
    write_result,
)
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
from maml_cli.evaluation.table_session import TableSession, range_warnings, scaling_note, start_table, summarise_table
from maml_cli.evaluation.tails import DIVERGED, Tail, percentile, worst_1_percent_share
from maml_cli.evaluation.task_errors import learner_errors, zero_errors
from maml_cli.evaluation.task_rows import TaskErrors, iter_task_rows
from maml_cli.evaluation.task_sample import TaskSample, sample_lines
from maml_cli.evaluation.trained_run import TrainedRun, open_run

__all__ = [
    "DIVERGED",
    "Comparison",
    "Errors",
    "Evaluation",
    "EvaluationResult",
    "KeyDifference",
    "KindErrors",
    "Landscape",
    "Lower",
    "NumericDifference",
    "OnTasks",
    "PointErrors",
    "Protocol",
    "RunDifference",
    "Statistic",
    "TableSession",
    "Tail",
    "TaskErrors",
    "TaskFit",
    "TaskSample",
    "TrainedRun",
    "by_step",
    "check_families",
    "check_memory",
    "compare_runs",
    "default_file",
    "diff_runs",
    "encode_params",
    "evaluate_learner",
    "evaluate_run",
    "finite_or_none",
    "fit_tasks",
    "fit_validation_tasks",
    "ignore_tasks",
    "iter_task_rows",
    "landscape",
    "landscape_parameters",
    "learner_errors",
    "learner_task_errors",
    "mean",
    "measure_of",
    "numeric_difference",
    "open_run",
    "percentile",
    "plain",
    "range_warnings",
    "sample_lines",
    "sample_test_tasks",
    "sample_validation_tasks",
    "scaling_note",
    "start_table",
    "statistic",
    "summarise_table",
    "summarise_tasks",
    "t_interval",
    "worst_1_percent_share",
    "write_result",
    "zero_errors",
]
