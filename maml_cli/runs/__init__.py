"""What is kept on disk: run directories, checkpoints, and files that a crash cannot leave half written."""

from maml_cli.runs.directory import Checkpoint, open_checkpoint, save_checkpoint, write_config
from maml_cli.runs.files import append_line, read_lines, write_atomic
from maml_cli.runs.metrics import read_alphas, read_evaluations, read_losses

__all__ = [
    "Checkpoint",
    "append_line",
    "open_checkpoint",
    "read_alphas",
    "read_evaluations",
    "read_lines",
    "read_losses",
    "save_checkpoint",
    "write_atomic",
    "write_config",
]
