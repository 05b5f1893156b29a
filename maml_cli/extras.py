"""Extras: packages that single features need, and whose absence is one line that says what to install."""

import importlib.util

from maml_cli.errors import ConfigError


def require(package: str, name: str, *, extra: str, user: str) -> None:
    """Raises ConfigError with the command that installs `extra`, unless its `package` can be imported.

    name: of the package in words. user: the command, option or config key that needs it, at which the message begins.
    """
    if importlib.util.find_spec(package) is None:
        install = f"pip install 'maml-cli[{extra}]'"
        raise ConfigError(f"{user}: needs {name}, which is not installed; install it with: {install}")
