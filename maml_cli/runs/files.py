"""Files that a crash, a full disk or a second process cannot leave half written, and that are not links elsewhere."""

import contextlib
import errno
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maml_cli.errors import FileError
from maml_cli.interrupts import temporary_files
from maml_cli.reading import NONBLOCKING, kind_of, read_if_exists, reason

OUTPUTS = Path("outputs")
"""Parent of the run directories that are not given with --out, relative to the working directory."""

LOG_BYTES, LOG_LINES = 32_000_000, 100_000
"""Largest JSON-lines file whose records are read."""
LINE_BYTES, LINE_LISTS = 8_000_000, 100_000
"""Largest line of one, in bytes and in lists and objects, each of which costs much more than its bytes: larger lines
are skipped. A line of 1,024 seeds with alphas of 17 layers has 70,000 lists."""
TRUNCATED_LOG_BYTES = 256_000_000
"""Largest JSON-lines file that is truncated, which is much faster than reading its records."""
RECORD_START, DIGITS = b'{"step": ', re.compile(rb"\d{1,19}")
"""Beginning of each line, and the outer step that follows it."""
SECONDS_FOR_LOCK = 0.2
"""Seconds in which a lock is tried: `is_locked` of another process takes it for an instant."""


def make_folder(folder: Path) -> None:
    """Create `folder` and those around it unless they exist; raises OSError, with what is in the way of a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        for path in (folder, *folder.parents):
            if os.path.lexists(path):
                raise OSError(errno.ENOTDIR, f"{path} is not a directory", str(folder)) from None
        raise


def target_of(file: Path) -> Path:
    """The path that `file` leads to through symbolic links; raises OSError for links in a circle."""
    target = Path(os.path.realpath(file))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(file))
    return target


def write_atomic(file: Path, data: bytes | memoryview) -> None:
    """Replace `file` by `data` atomically: a temporary file is written, flushed to disk and renamed to `file`.

    A symbolic or hard link is replaced, its target is unchanged. Raises OSError, for a directory or a device too;
    `file` is then unchanged and the temporary file removed.
    """
    with replacing(file) as descriptor:
        _write(descriptor, data)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[int]:
    """The descriptor of a temporary file, which replaces `file` at the end of the block as by `write_atomic`; after an
    exception it is removed and `file` unchanged."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.lstat(file).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):  # root could replace /dev/full
            raise OSError(errno.EEXIST, f"{kind_of(mode)}, not a regular file", str(file))
    temporary = file.with_name(f".{file.name[:200]}.tmp-{os.getpid()}-{os.urandom(4).hex()}")
    temporary_files.add(temporary)
    try:
        with _opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
            yield descriptor
            os.fsync(descriptor)
        os.replace(temporary, file)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, reason(error), str(file)) from None
    finally:
        temporary.unlink(missing_ok=True)
        temporary_files.discard(temporary)
    if os.name == "posix":  # the rename itself is on disk only after this
        directory = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def append_line(file: Path, record: Mapping[str, Any]) -> None:
    """Append `record` to a JSON-lines file; raises OSError, for a link or a file that is not regular too."""
    with _opened(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as descriptor:
        _write(descriptor, (json.dumps(record) + "\n").encode())


def fsync_file(file: Path) -> None:
    """fsync `file`, so that no checkpoint refers to log lines that are not on disk."""
    with contextlib.suppress(FileNotFoundError), _opened(file, os.O_WRONLY) as descriptor:
        os.fsync(descriptor)


def parse_json(text: bytes) -> Any:
    """The value of strict JSON in UTF-8; raises ValueError for any other text, also for JSON nested too deeply."""
    try:
        return _STRICT_JSON.decode(text.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Records of a JSON-lines file that have a `step`; other lines, such as one that a crash cut short, are skipped.

    Raises FileError as `split_lines` does.
    """
    return [record for line in split_lines(file) if (record := parse_record(line)) is not None]


def split_lines(file: Path) -> list[bytes]:
    """The lines of a JSON-lines file, without empty ones.

    Raises FileError if the file is not a regular one, larger than LOG_BYTES, or has more than LOG_LINES lines.
    """
    data = read_if_exists(file, limit=LOG_BYTES) or b""
    if data.count(b"\n") > LOG_LINES:
        raise FileError(f"{file}: more than {LOG_LINES:,} lines, the limit for a log that is read")
    return [line for line in data.split(b"\n") if line]


def read_last_record(file: Path) -> dict[str, Any] | None:
    """The record in the last line of a JSON-lines file of any number of lines; None if there is none.

    Raises FileError if the file is not a regular one, or larger than TRUNCATED_LOG_BYTES.
    """
    data = read_if_exists(file, limit=TRUNCATED_LOG_BYTES) or b""
    return parse_record(data[data.rfind(b"\n", 0, -1) + 1 :])


def parse_record(line: bytes) -> dict[str, Any] | None:
    """The record of a line of a JSON-lines file: an object with a whole number `step` from 0; None for another line."""
    if len(line) > LINE_BYTES or line.count(b"[") + line.count(b"{") > LINE_LISTS:
        return None
    try:
        record = parse_json(line)
    except ValueError:
        return None
    has_step = isinstance(record, dict) and type(record.get("step")) is int and record["step"] >= 0
    return record if has_step else None


def truncate_lines(file: Path, *, up_to_step: int) -> None:
    """Remove the records after outer step `up_to_step` from a JSON-lines file; the other lines keep their bytes.

    The file is a new one then, also in place of a link. Raises FileError if the file is not a regular one, or larger
    than TRUNCATED_LOG_BYTES, and OSError.
    """
    data = read_if_exists(file, limit=TRUNCATED_LOG_BYTES) or b""
    write_atomic(file, memoryview(data)[: _end_of_step(data, up_to_step)])


def remove_temporary_files(directory: Path) -> None:
    """Remove the temporary files of processes that were killed while writing to `directory`."""
    for temporary in directory.glob(".*.tmp-*"):
        if not temporary.name.startswith(".eval.json"):  # `maml eval` may be writing it now
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive_lock(file: Path, *, busy: str) -> Iterator[None]:
    """Hold an exclusive lock on `file`, released when the process ends; raises FileError(`busy`) if it is taken."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: training works without a lock
        yield
        return
    with _opened(file, os.O_RDWR | os.O_CREAT) as descriptor:
        deadline = time.monotonic() + SECONDS_FOR_LOCK
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FileError(busy) from None
                time.sleep(SECONDS_FOR_LOCK / 10)
        yield


def is_locked(file: Path) -> bool:
    """Whether another process holds the exclusive lock on `file`; creates nothing."""
    try:
        import fcntl

        with _opened(file, os.O_RDONLY) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False


@contextlib.contextmanager
def _opened(file: Path, flags: int) -> Iterator[int]:
    """The descriptor of `file`, a regular file and no symbolic link; raises OSError with the path, in the body too."""
    try:
        descriptor = os.open(file, flags | NONBLOCKING | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            kind = kind_of(os.fstat(descriptor).st_mode)
            if kind:
                raise OSError(errno.EINVAL, f"{kind}, not a regular file")
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a symbolic link, through which nothing is written", str(file)) from None
        if error.filename is None:
            error.filename = str(file)
        raise


def _write(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:  # a write of more than 2 GB, or on a nearly full disk, is partial
        view = view[os.write(descriptor, view) :]


def _end_of_step(data: bytes, step: int) -> int:
    """Position after the last line of a record up to outer step `step`, by bisection: steps ascend."""
    low, high = 0, data.rfind(b"\n") + 1  # a last line without its end was cut short by a crash
    while low < high:
        middle = (low + high) // 2
        at_low = middle == low and data.startswith(RECORD_START, low)
        start = low if at_low else data.find(b"\n" + RECORD_START, max(middle - 1, 0), high + len(RECORD_START) - 1) + 1
        digits = DIGITS.match(data, start + len(RECORD_START)) if at_low or start else None
        if digits and int(digits[0]) <= step:
            low = data.find(b"\n", start) + 1
        else:
            high = middle
    return low


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_STRICT_JSON = json.JSONDecoder(parse_constant=_refuse_constant)
