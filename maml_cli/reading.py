"""Files read within bounds: regular files of limited size, and for configs pipes that end in time.

Any file may be read: a FIFO that nothing writes to, a device without end and a file of gigabytes are refused at once.
"""

import hashlib
import os
import select
import stat
import time
from pathlib import Path

from maml_cli.errors import FileError

PIPE_SECONDS = 1.5
"""Seconds in which a pipe, such as that of `--config <(...)`, must be written and closed."""
NONBLOCKING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Flags to open a file with: an open FIFO does not wait for the other end."""


def read_file(file: Path, *, limit: int) -> bytes:
    """The contents of a regular file of at most `limit` bytes; raises FileError for any other file."""
    data = read_if_exists(file, limit=limit)
    if data is None:
        raise FileError(f"{file}: cannot be read: no such file")
    return data


def read_if_exists(file: Path, *, limit: int) -> bytes | None:
    """As `read_file`, or None if there is no such file."""
    try:
        kind = kind_of(os.stat(file).st_mode)  # before it is opened: opening a device can have an effect
        if kind:
            raise FileError(f"{file}: {kind}, not a regular file; remove it or give another")
        with open(os.open(file, os.O_RDONLY | NONBLOCKING), "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > limit:
                raise FileError(_too_large(file, limit))
            data = stream.read((size or limit) + 1) or b""  # files of /proc have a size of 0
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {reason(error)}") from None
    if len(data) > limit:
        raise FileError(_too_large(file, limit))
    return data


def sha256_of(file: Path) -> str:
    """The SHA-256 digest of a regular file of any size, in hexadecimal; raises FileError for any other file."""
    try:
        kind = kind_of(os.stat(file).st_mode)
        if kind:
            raise FileError(f"{file}: {kind}, not a regular file; give another")
        with open(os.open(file, os.O_RDONLY | NONBLOCKING), "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {reason(error)}") from None


def read_file_or_pipe(file: Path, *, limit: int) -> bytes:
    """As `read_file`, also from a pipe that is written to and closed within PIPE_SECONDS."""
    try:
        if not stat.S_ISFIFO(os.stat(file).st_mode):
            return read_file(file, limit=limit)
        descriptor = os.open(file, os.O_RDONLY | NONBLOCKING)
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {reason(error)}") from None
    try:
        return _read_pipe(file, descriptor, limit)
    finally:
        os.close(descriptor)


def kind_of(mode: int) -> str:
    """The kind of a file by its `st_mode`, such as `a FIFO`; empty for a regular file."""
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
        stat.S_IFLNK: "a symbolic link",
    }
    return "" if stat.S_ISREG(mode) else kinds.get(stat.S_IFMT(mode), "a special file")


def reason(error: OSError) -> str:
    """The reason of an error of the operating system in words; never empty."""
    return error.strerror or str(error) or type(error).__name__


def _read_pipe(file: Path, descriptor: int, limit: int) -> bytes:
    data, deadline = b"", time.monotonic() + PIPE_SECONDS
    while len(data) <= limit:
        seconds_left = deadline - time.monotonic()
        if seconds_left <= 0 or not select.select([descriptor], [], [], seconds_left)[0]:
            raise FileError(f"{file}: a pipe that is not written and closed within {PIPE_SECONDS:g} s")
        chunk = os.read(descriptor, limit + 1 - len(data))
        if not chunk and not data:
            raise FileError(f"{file}: a pipe that nothing was written to")
        if not chunk:
            return data
        data += chunk
    raise FileError(_too_large(file, limit))


def _too_large(file: Path, limit: int) -> str:
    return f"{file}: larger than {limit / 1e6:,.3g} MB, the limit for a file of its kind"
