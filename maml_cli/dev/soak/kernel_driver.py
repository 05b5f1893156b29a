"""Processes that make calls of the kernel, compiled with or without sanitizers."""

import contextlib
import ctypes
import io
import os
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from maml_cli.engines import kernel_build
from maml_cli.engines.kernel_call import PackedCall
from maml_cli.engines.kernel_spec import KernelSpec

DRIVER = Path(__file__).with_suffix(".cpp")
NO_CONTRACTION = "-ffp-contract=off"
"""Products and sums are rounded one by one, so that every optimisation and every sanitizer gives the same bytes."""
SANITIZERS = {
    "address,undefined": ("-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-O0", "-g1", "-fsanitize=thread"),
}
"""The arguments of the compiler for each sanitizer. Without optimisation every access of the source is made and
checked, and a kernel compiles in seconds instead of half a minute."""
OPTIONS = {
    "ASAN_OPTIONS": "max_malloc_fill_size=1000000000",  # memory that nobody has written is not zero
    "TSAN_OPTIONS": "halt_on_error=1",
}
SECONDS = 300.0
"""Time limit of a process: all calls of a kernel take a fraction of it."""
ADDR_NO_RANDOMIZE = 0x0040000


class Reply(NamedTuple):
    """The result of a call.

    code: the kernel's return value.
    contents: the bytes of all arrays after the call, as those of `contents`.
    """

    code: int
    contents: bytes


def build_driver(spec: KernelSpec, flags: Sequence[str], target: Path) -> Path:
    """Compile the kernel for `spec` with its driver to the program `target`, with `flags` after those of the kernel."""
    flags = [kernel_build.OPTIMISATION, *kernel_build.FLAGS, NO_CONTRACTION, *spec.definitions(), *flags]
    sources = ["-include", str(kernel_build.SOURCE), str(DRIVER)]
    subprocess.run([*_compiler(), *flags, *sources, "-o", str(target)], check=True)
    return target


def has_sanitizer(flags: Sequence[str], scratch: Path) -> bool:
    """Whether a program that is compiled with `flags` runs: there are a compiler and the libraries of the sanitizer."""
    target = scratch / "probe"
    command = [*_compiler(), *flags, "-x", "c++", "-", "-o", str(target)]
    try:
        subprocess.run(command, input=b"int main() {}", capture_output=True, check=True)
        return _run(target, b"")[1] is None
    except (OSError, subprocess.CalledProcessError):
        return False


def replay(driver: Path, calls: Sequence[PackedCall]) -> list[Reply | str]:
    """For each call its reply or the report of the sanitizer, which ends the process: the next call gets a new one.

    A report at the exit of a process, of memory that leaks, replaces the reply to its last call.
    """
    replies = list[Reply | str]()
    while len(replies) < len(calls):
        remaining = calls[len(replies) :]
        output, report = _run(driver, b"".join(map(_encode, remaining)))
        replies += _decode(output, remaining)
        if report is not None or len(replies) < len(calls):
            del replies[len(calls) - 1 :]
            replies.append(report or "ended without a reply")
    return replies


def contents(call: PackedCall) -> bytes:
    """The bytes of the arrays of a call, one array after the other."""
    arrays = (array for array in call.arrays.values() if array is not None)
    return b"".join(array.contiguous().numpy().tobytes() for array in arrays)


def _compiler() -> list[str]:
    return [kernel_build.compiler() or "c++", "-pthread"]


def _run(program: Path, data: bytes) -> tuple[bytes, str | None]:
    """The output of `program` for the input `data`; and if it fails, the line that says why."""
    try:
        done = subprocess.run(
            [program],
            input=data,
            capture_output=True,
            env=os.environ | OPTIONS,
            timeout=SECONDS,
            preexec_fn=_fix_addresses,
        )
    except subprocess.TimeoutExpired as error:
        return error.stdout or b"", f"did not end within {SECONDS:g} seconds"
    if done.returncode == 0:
        return done.stdout, None
    lines = done.stderr.decode(errors="replace").splitlines()
    named = [line.strip() for line in lines if "runtime error: " in line or "SUMMARY: " in line]
    return done.stdout, (named or lines[-1:] or [""])[0] or f"exit code {done.returncode}"


def _fix_addresses() -> None:
    """Let a process have the same addresses every time: ThreadSanitizer does not start with some others."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).personality(ADDR_NO_RANDOMIZE)


def _encode(call: PackedCall) -> bytes:
    """The bytes of a call, as the driver reads them."""
    sizes = [-1 if array is None else array.nbytes for array in call.arrays.values()]
    return bytes(call.args) + struct.pack(f"={len(sizes)}q", *sizes) + contents(call)


def _decode(output: bytes, calls: Sequence[PackedCall]) -> Iterator[Reply]:
    """The replies of which `output` has all bytes."""
    stream = io.BytesIO(output)
    for call in calls:
        size = len(contents(call))
        code, after = stream.read(8), stream.read(size)
        if len(code) < 8 or len(after) < size:
            return
        yield Reply(struct.unpack("=q", code)[0], after)
