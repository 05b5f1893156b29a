"""Run directories on disk: configs, metrics and checkpoints, written so that a crash leaves no file half written."""

from typing import TYPE_CHECKING

from maml_cli.lazy import lazy_attributes
from maml_cli.runs.files import OUTPUTS

if TYPE_CHECKING:
    from maml_cli.runs.contents import check_finite, check_tensors
    from maml_cli.runs.creation import check_new_run, create_run, new_run
    from maml_cli.runs.directory import save_checkpoint, write_config
    from maml_cli.runs.files import (
        append_line,
        exclusive_lock,
        is_locked,
        make_folder,
        read_lines,
        replacing,
        target_of,
        write_atomic,
    )
    from maml_cli.runs.listing import checkpoint_files, read_config
    from maml_cli.runs.load import Checkpoint, newest_good_checkpoint, open_checkpoint
    from maml_cli.runs.metric_table import METRIC_COLUMNS, metric_rows
    from maml_cli.runs.metrics import EvaluationRecord, LossRecord, read_alphas, read_evaluations, read_losses
    from maml_cli.runs.newest import find_run, newest_runs, run_directories
    from maml_cli.runs.overview import STATES, RunOverview, read_overview
    from maml_cli.runs.pruning import Pruning, plan_pruning, prune
    from maml_cli.runs.published import published_names
    from maml_cli.runs.replaced_config import replace_config

__all__ = [
    "METRIC_COLUMNS",
    "OUTPUTS",
    "STATES",
    "Checkpoint",
    "EvaluationRecord",
    "LossRecord",
    "Pruning",
    "RunOverview",
    "append_line",
    "check_finite",
    "check_new_run",
    "check_tensors",
    "checkpoint_files",
    "create_run",
    "exclusive_lock",
    "find_run",
    "is_locked",
    "make_folder",
    "metric_rows",
    "new_run",
    "newest_good_checkpoint",
    "newest_runs",
    "open_checkpoint",
    "plan_pruning",
    "prune",
    "published_names",
    "read_alphas",
    "read_config",
    "read_evaluations",
    "read_lines",
    "read_losses",
    "read_overview",
    "replace_config",
    "replacing",
    "run_directories",
    "save_checkpoint",
    "target_of",
    "write_atomic",
    "write_config",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "STATES": "overview",
        "Checkpoint": "load",
        "METRIC_COLUMNS": "metric_table",
        "EvaluationRecord": "metrics",
        "LossRecord": "metrics",
        "RunOverview": "overview",
        "Pruning": "pruning",
        "plan_pruning": "pruning",
        "prune": "pruning",
        "published_names": "published",
        "append_line": "files",
        "check_finite": "contents",
        "check_tensors": "contents",
        "check_new_run": "creation",
        "checkpoint_files": "listing",
        "create_run": "creation",
        "find_run": "newest",
        "exclusive_lock": "files",
        "is_locked": "files",
        "make_folder": "files",
        "new_run": "creation",
        "newest_good_checkpoint": "load",
        "newest_runs": "newest",
        "open_checkpoint": "load",
        "metric_rows": "metric_table",
        "read_alphas": "metrics",
        "read_config": "listing",
        "read_evaluations": "metrics",
        "read_lines": "files",
        "read_losses": "metrics",
        "read_overview": "overview",
        "replace_config": "replaced_config",
        "replacing": "files",
        "run_directories": "newest",
        "save_checkpoint": "directory",
        "target_of": "files",
        "write_atomic": "files",
        "write_config": "directory",
    },
)
