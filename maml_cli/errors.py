"""The user's mistakes and the machine's: each becomes one message and an exit code, never a traceback."""

from typing import Literal


class UserError(Exception):
    """Something the reader of the message can put right. `exit_code` is what the process returns."""

    exit_code = 2


class ConfigError(UserError):
    """A config, preset or option that cannot be used; the message lists every problem found."""


class FileError(UserError):
    """A file or directory that is missing, in the way, or cannot be written."""

    exit_code = 3


class CheckpointError(UserError):
    """A checkpoint that is damaged, not ours, or written by a newer version."""

    exit_code = 4


class InterruptedRun(UserError):
    """A training that was stopped before it could save; `exit_code` is that of the signal."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class DivergedError(UserError):
    """A loss or a gradient that is no longer finite; nothing was updated with it.

    `outer_step` counts from 1; `cause` is `query_loss` if the query loss of a task is not finite there, and `gradient`
    if only gradients are not.
    """

    exit_code = 5

    def __init__(self, message: str, *, outer_step: int, cause: Literal["query_loss", "gradient"]) -> None:
        super().__init__(message)
        self.outer_step = outer_step
        self.cause = cause
