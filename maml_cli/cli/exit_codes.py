"""What goes wrong, as the user sees it: one message on stderr and an exit code."""

import contextlib
import sys
from collections.abc import Iterator

import typer

from maml_cli.errors import ConfigError, FileError, UserError


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Every mistake of the user's becomes a message on stderr and an exit code."""
    try:
        yield
    except UserError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", FileError.exit_code)
    except (MemoryError, RuntimeError) as error:
        out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not out_of_memory and "can't allocate memory" not in str(error):
            raise
        _fail("out of memory; try fewer tasks, points or steps, or a smaller network", ConfigError.exit_code)


def _fail(message: str, exit_code: int) -> None:
    # No escape sequence of a hostile file reaches the terminal.
    plain = "".join(character if character.isprintable() or character == "\n" else "?" for character in message)
    typer.echo(plain, err=True)
    sys.exit(exit_code)
