"""Errors as the user sees them: one line on stderr, `subject: problem; advice`, and an exit code."""

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from maml_cli.errors import ConfigError, FileError, UserError, printable
from maml_cli.messages import wrapped

# The base of all errors of a command line. It has no public name: typer carries its own copy of click.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


ALLOCATION_FAILURES = ("allocate memory", "bad_alloc", "bad allocation", "Resource temporarily unavailable")
"""Words of the RuntimeErrors in which PyTorch and C++ report memory or threads that the system refuses."""
OUT_OF_MEMORY = (
    "out of memory; try fewer tasks, points or steps, or a smaller network: lower outer.tasks_per_step, "
    "tasks.num_support, tasks.num_query, inner.steps, run.eval_tasks, run.seeds or model.hidden, or of other commands "
    "--tasks, --shots and --steps"
)


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn every mistake of the user's into a message and an exit code; other errors are bugs and pass through."""
    try:
        yield
    except UserError as error:
        _fail(error.lines, error.exit_code)
    except UsageError as error:
        _fail(_usage_message(error), ConfigError.exit_code)
    except ImportError as error:
        if "failed to map" not in str(error) and "allocate memory" not in str(error):
            raise
        _fail([OUT_OF_MEMORY], ConfigError.exit_code)
    except OSError as error:
        if error.errno == errno.ENOMEM or "failed to map" in str(error):
            _fail([OUT_OF_MEMORY], ConfigError.exit_code)
        file = f"{error.filename}: " if error.filename else ""
        _fail([f"{file}{error.strerror or error}"], FileError.exit_code)
    except (MemoryError, RuntimeError) as error:
        is_memory_error = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not is_memory_error and not any(words in str(error) for words in ALLOCATION_FAILURES):
            raise
        _fail([OUT_OF_MEMORY], ConfigError.exit_code)


@contextlib.contextmanager
def discard_unwritten() -> Iterator[None]:
    """At the end, drop what stdout or stderr did not take, on a full disk: Python would write it again, and exit with
    120."""
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except ValueError:
                continue  # closed
            except OSError:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


@contextlib.contextmanager
def writing(option: str, path: Path | None) -> Iterator[None]:
    """Name the option and its path in errors of writing there; without a path, the file alone, if it is known."""
    try:
        yield
    except OSError as error:
        target = f"{option} {path}" if path else error.filename
        if target is None:
            raise
        raise FileError(f"{target}: cannot be written: {error.strerror or error}") from None


def print_path(path: str | Path) -> None:
    """Print a path to stdout: its bytes, as a script needs them; on a terminal, escapes for what does not print."""
    sys.stdout.flush()
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None or sys.stdout.isatty():
        typer.echo(printable(str(path)))
    else:
        binary.write(os.fsencode(path) + b"\n")
        binary.flush()


def _usage_message(error: Any) -> list[str]:
    """The lines of a message about the command line: a page of help, or one line."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return str(error.format_message()).splitlines()
    return [_usage_problem(error)]


def _usage_problem(error: Any) -> str:
    """The message of an unknown option or command, a missing argument, or a value that its parser refused."""
    kind = type(error).__name__
    page = f"see {error.ctx.command_path if error.ctx else 'maml'} --help"
    if kind == "NoSuchOption":
        close = f"did you mean {', '.join(sorted(error.possibilities))}?" if error.possibilities else page
        return f"{error.option_name}: no such option; {close}"
    if kind == "BadOptionUsage":
        return f"{error.option_name}: {_without_subject(error.message)}; {page}"
    if kind == "MissingParameter":
        return f"{_parameter(error)}: missing; {page}"
    if match := re.match(r"No such command '(.*?)'\.(?: Did you mean (.*)\?)?", error.message):
        possible = (match[2] or "").replace("'", "")
        return f"{match[1]}: no such command; {f'did you mean {possible}?' if possible else page}"
    if match := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", error.message):
        return f"{match[1]}: not expected here; {page}"
    if isinstance(error, typer.BadParameter):
        return f"{_parameter(error)} {error.message}"
    return f"{_without_subject(error.message)}; {page}"


def _parameter(error: Any) -> str:
    """The longest name of an option, or the name of an argument on the help page."""
    if error.param_hint or error.param is None:
        return str(error.param_hint or "maml")
    is_option = error.param.param_type_name == "option"
    return str(max(error.param.opts, key=len) if is_option else error.param.metavar or error.param.name)


def _without_subject(message: str) -> str:
    """`Option '--out' requires an argument.` as `requires an argument`."""
    words = message.removesuffix(".")
    if words.startswith("Option '"):
        return words.split("' ", 1)[1]
    return words[:1].lower() + words[1:]


def _fail(lines: Sequence[str], exit_code: int) -> None:
    plain = "\n".join(wrapped(printable(line), sys.stderr) for line in lines)
    if plain:
        with contextlib.suppress(OSError):  # stderr on a full disk: the exit code still says what kind of error
            typer.echo(plain, err=True)
    sys.exit(exit_code)
