"""Files that a crash, a full disk or a second process cannot leave half written."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maml_cli.errors import FileError

OUTPUTS = Path("outputs")
"""Parent of the run directories that are not given with --out, relative to the working directory."""


def write_atomic(file: Path, data: bytes) -> None:
    """Replace `file` by `data` atomically: a temporary file is written, flushed to disk and renamed to `file`.

    The target of a symbolic link is replaced, not the link. Raises OSError, for a directory or a device too; `file` is
    then unchanged and the temporary file removed.
    """
    if file.exists() and not file.is_file():  # root could replace /dev/full
        raise OSError(errno.EEXIST, "not a regular file", str(file))
    file = file.resolve()
    temporary = file.with_name(f".{file.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself is on disk only after this
        directory = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def append_line(file: Path, record: Mapping[str, Any]) -> None:
    """Append `record` to a JSON-lines file."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


def fsync_file(file: Path) -> None:
    """fsync `file`, so that no checkpoint refers to log lines that are not on disk."""
    if file.exists():
        with file.open("a") as stream:
            os.fsync(stream.fileno())


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Records of a JSON-lines file that have a `step`; lines that a crash cut short are skipped."""
    return [record for _, record in _lines(file)]


def truncate_lines(file: Path, *, up_to_step: int) -> None:
    """Remove the records after outer step `up_to_step` from a JSON-lines file; the other lines keep their bytes."""
    retained = [line for line, record in _lines(file) if record["step"] <= up_to_step]
    write_atomic(file, "".join(f"{line}\n" for line in retained).encode())


def remove_temporary_files(directory: Path) -> None:
    """Remove the temporary files of processes that were killed while writing to `directory`."""
    for temporary in directory.glob(".*.tmp-*"):
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive_lock(file: Path, *, busy: str) -> Iterator[None]:
    """Hold an exclusive lock on `file`, released when the process ends; raises FileError(`busy`) if it is taken."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: training works without a lock
        yield
        return
    with file.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileError(busy) from None
        yield


def _lines(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Each line that is a JSON object with an integer `step`, as text and as the object."""
    lines = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                lines.append((line, record))
    return lines
