"""Rows of text tables: files, pipes or standard input, with columns separated by commas, semicolons or tabs."""

import contextlib
import csv
import os
import sys
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO, NamedTuple

from maml_cli.errors import DataError, FileError
from maml_cli.reading import kind_of, reason

SEPARATORS = ";\t,"
"""In the order in which they are looked for in the first line: the comma may be a decimal comma."""
MAX_LINE = 100_000
"""Bytes of a line; longer ones are not a table's."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Row = tuple[int, list[str]]
"""The number of a row's last line, from 1, and its fields."""


class TextRows(NamedTuple):
    """The rows of a table that are not empty.

    source: the file, for messages.
    separator: of the columns.
    rows: of the rest of the table; an iterator.
    """

    source: str
    separator: str
    rows: Iterator[Row]


def open_rows(file: Path | None) -> TextRows:
    """The rows of `file`, or of standard input for None.

    Raises FileError if it cannot be read, and DataError, also while rows are read, for what is not a table in UTF-8.
    """
    source = "standard input" if file is None else str(file)
    lines = _iter_lines(file, source)
    head = list[str]()
    for line in lines:
        head.append(line)
        if line.strip():
            break
    else:
        raise DataError(f"{source}: empty; give a header such as x,y and rows of numbers")
    separator = next((mark for mark in SEPARATORS if mark in head[-1]), ",")
    return TextRows(source, separator, _iter_rows(chain(head, lines), separator, source))


@contextlib.contextmanager
def _open(file: Path | None) -> Iterator[BinaryIO]:
    if file is None:
        yield sys.stdin.buffer
        return
    try:
        kind = kind_of(os.stat(file).st_mode)
        if kind == "a directory":
            raise FileError(f"{file}: {kind}; give a file")
        stream = open(file, "rb")  # noqa: SIM115
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {reason(error)}") from None
    with stream:
        yield stream


def _iter_lines(file: Path | None, source: str) -> Iterator[str]:
    with _open(file) as stream:
        for number in count(1):
            try:
                line = stream.readline(MAX_LINE + 1)
            except OSError as error:
                raise FileError(f"{source}: cannot be read: {reason(error)}") from None
            if not line:
                return
            yield _decode(line, number, source)


def _decode(line: bytes, number: int, source: str) -> str:
    if len(line) > MAX_LINE:
        raise DataError(f"{source}:{number}: longer than {MAX_LINE:,} bytes; not a table")
    try:
        text = line.removeprefix(BYTE_ORDER_MARK if number == 1 else b"").decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{source}:{number}: not UTF-8 text; save the table as UTF-8") from None
    if "\0" in text:
        raise DataError(f"{source}:{number}: has a NUL byte; save the table as UTF-8 text")
    return text


def _iter_rows(lines: Iterator[str], separator: str, source: str) -> Iterator[Row]:
    reader = csv.reader(lines, delimiter=separator)
    try:
        for row in reader:
            if len(row) > 1 or any(map(str.strip, row)):
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{source}:{reader.line_num}: {error}") from None
