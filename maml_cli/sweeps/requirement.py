"""Optuna, which only sweeps need: an extra of the package, whose absence is one line."""

import importlib.util

from maml_cli.errors import ConfigError

INSTALL = "pip install 'maml-cli[sweep]'"


def require_optuna() -> None:
    """Raises ConfigError with the command that installs Optuna, unless it is installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(f"maml sweep: needs Optuna, which is not installed; install it with: {INSTALL}")
