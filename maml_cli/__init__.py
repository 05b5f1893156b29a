"""A command-line MAML sine-regression trainer: `maml train`, `maml eval`, `maml plot`, `maml check`."""

__version__ = "0.1.0"
