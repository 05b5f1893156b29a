"""Messages: one line each in files and pipes; on a terminal, broken at words and indented below themselves."""

import contextlib
import os
import re
import shlex
import sys
import textwrap
from pathlib import Path
from typing import TextIO

from maml_cli.errors import printable

LEAST_WIDTH = 40
"""Columns of a terminal below which it breaks the lines itself."""
BLANK = "\0"
"""A space at which no line is broken; it does not print, so that no message has one."""
UNBROKEN = re.compile(r"(?<=: )maml (?=[a-z]).*$|(?<!\S)'[^']*'(?=[\s:;,.)]|$)")
"""A command at the end of a message, which is copied as one line, and a quoted text, such as a path with spaces."""
LABEL = re.compile(r" *(?:[\w-]+ {2,})?")
"""The indentation and the label of a line such as `  order    second order`."""


def print_message(text: str) -> None:
    """Print a message to stderr, with escapes for what does not print; a closed pipe is ignored."""
    with contextlib.suppress(OSError, ValueError):
        print(wrapped(printable(text), sys.stderr), file=sys.stderr, flush=True)


def quoted(path: str | Path) -> str:
    """A path as the shell takes it, for a command in a message."""
    return shlex.quote(str(path))


def wrapped(text: str, stream: TextIO | None = None) -> str:
    """`text`, a line that `stream` (by default stdout) is to show, in lines of its width if that is a terminal.

    Lines are broken at spaces alone, so that paths stay whole; the further ones are indented below the first.
    """
    width = columns_of(stream or sys.stdout)
    if width is None or width < LEAST_WIDTH or len(text) <= width:
        return text
    joined = UNBROKEN.sub(lambda match: match[0].replace(" ", BLANK), text)
    label = LABEL.match(text)
    indent = " " * max(label.end() if label else 0, 2)
    lines = textwrap.wrap(
        joined, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, expand_tabs=False
    )
    return "\n".join(lines).replace(BLANK, " ")


def columns_of(stream: TextIO) -> int | None:
    """The columns of a terminal, by COLUMNS where that is set; None for another stream."""
    try:
        if not stream.isatty():
            return None
        columns = os.environ.get("COLUMNS", "")
        return int(columns) if columns.isdecimal() and int(columns) else os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return None
