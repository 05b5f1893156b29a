"""Files written so that a crash, a full disk or a second process cannot leave them half done."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maml_cli.errors import FileError


def write_atomic(file: Path, data: bytes) -> None:
    """Write `file` whole or not at all: a temporary file, flushed to disk, then renamed over it."""
    temporary = file.with_name(f".{file.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        directory = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def append_line(file: Path, record: Mapping[str, Any]) -> None:
    """Add one JSON object as a line."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


def fsync_file(file: Path) -> None:
    """Have what was appended to `file` on disk before anything that says so."""
    if file.exists():
        with file.open("a") as stream:
            os.fsync(stream.fileno())


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects with a `step` of a JSON-lines file; a line that a crash cut short is left out."""
    return [record for _, record in _lines(file)]


def truncate_lines(file: Path, *, up_to_step: int) -> None:
    """Drop the objects of a JSON-lines file whose `step` is later, and leave the bytes of the others."""
    kept = [line for line, record in _lines(file) if record["step"] <= up_to_step]
    write_atomic(file, "".join(f"{line}\n" for line in kept).encode())


def remove_temporary_files(directory: Path) -> None:
    """Remove the temporary files of processes that were killed while writing."""
    for stray in directory.glob(".*.tmp-*"):
        stray.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive_lock(file: Path, *, busy: str) -> Iterator[None]:
    """Hold an exclusive lock, which dies with the process; raises FileError(`busy`) if another holds it."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: no lock, and no harm to a single process
        yield
        return
    with file.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileError(busy) from None
        yield


def _lines(file: Path) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                found.append((line, record))
    return found
