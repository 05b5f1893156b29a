"""Mistakes of the user and faults of the machine: each becomes one message and an exit code, never a traceback.

UserError                  2    (base class)
├── ConfigError            2    config, preset or option that is invalid
├── DataError              2    points of the user's own that are invalid; a ValueError too
├── FileError              3    file or directory that is missing, taken, or cannot be read or written
├── CheckpointError        4    checkpoint that is damaged, foreign, or written by a newer version
│   └── NewerVersionError  4    the last of these
├── DivergedError          5    loss, meta-gradient or update that is not finite
└── InterruptedRun       130    training or sweep stopped by Ctrl-C; 143 for SIGTERM

A message has the form "path: problem; advice". Any other exception is a bug: exit code 1 and a traceback.
"""

from typing import Literal

DivergenceCause = Literal["query_loss", "gradient", "update"]


def printable(text: str) -> str:
    """`text` as one line for people: characters that do not print, such as line breaks, escapes of a terminal, marks of
    the writing direction and bytes that are not UTF-8, are written as escapes. All text from outside passes through it.

    >>> print(printable("a\\nb\\x1b[31m \\u202e \\udcff"))
    a\\nb\\x1b[31m \\u202e \\xff
    """
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def shorten(text: str, length: int) -> str:
    """`text` cut to `length` characters, the last three of which are `...` if anything is left out."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, by surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


class UserError(Exception):
    """An error that the reader of its message can correct. `exit_code` is the exit code of the process.

    lines: the lines of the message, mostly one; every character of them prints.
    """

    exit_code = 2

    def __init__(self, *lines: str) -> None:
        self.lines = [printable(line) for line in lines]
        super().__init__("\n".join(self.lines))


class ConfigError(UserError):
    """A config, preset or option that is invalid; the message lists all problems."""


class DataError(UserError, ValueError):
    """Points of the user's own that no learner can adapt to, in an array or a table."""


class FileError(UserError):
    """A file or directory that is missing, taken, or cannot be read or written."""

    exit_code = 3


class CheckpointError(UserError):
    """A checkpoint that is damaged, foreign, or written by a newer version."""

    exit_code = 4


class NewerVersionError(CheckpointError):
    """A checkpoint written by a newer version: it is good, so that no older one is taken in its stead."""


class InterruptedRun(UserError):
    """A training or sweep that a signal stopped; `exit_code` is 128 + its number. Without a message it is printed."""

    def __init__(self, *lines: str, exit_code: int = 130) -> None:
        super().__init__(*lines)
        self.exit_code = exit_code


class DivergedError(UserError):
    """A query loss, meta-gradient or update of all active runs that is not finite; nothing was updated with it.

    outer_step: the outer step in which it occurred, from 1.
    cause: the first value that was not finite; at outer step 0, an initial value.
    """

    exit_code = 5

    def __init__(self, *lines: str, outer_step: int = 1, cause: DivergenceCause = "query_loss") -> None:
        super().__init__(*lines)
        self.outer_step = outer_step
        self.cause: DivergenceCause = cause
