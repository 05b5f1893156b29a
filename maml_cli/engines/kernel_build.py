"""The kernel for the CPU, kernel.cpp: compiled for one config on first use, and cached."""

import atexit
import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from maml_cli.engines.kernel_spec import KernelSpec
from maml_cli.errors import FileError
from maml_cli.interrupts import temporary_files
from maml_cli.runs import write_atomic

SOURCE = Path(__file__).with_name("kernel.cpp")
EVALUATION_SOURCE = SOURCE.with_name("evaluation.cpp")
HEADERS = tuple(
    SOURCE.with_name(name)
    for name in ("network.h", "context.h", "rule.h", "ridge.h", "products.h", "start.h", "calls.h")
)
OPTIMISATION = "-O2"
"""Tests of small networks lower it: most of their time is compilation."""
FLAGS = (
    *("-march=native", "-fno-math-errno", "-fno-trapping-math", "-std=c++17"),
    # All of -O3 that makes the kernel faster: it takes a fifth less time to compile.
    *("-ftree-vectorize", "-fvect-cost-model=dynamic", "-fpeel-loops", "-funswitch-loops"),
)
LIBRARY_FLAGS = ("-shared", "-fPIC", "-pthread")
COMPILE_SECONDS = 900.0
"""Time limit of a compilation: the largest kernels take a minute."""


class Kernel(NamedTuple):
    """A compiled kernel.

    spec: the constants it was compiled with.
    library: the shared library, whose function is `take_outer_steps`, or `compute_errors` if compiled from
        EVALUATION_SOURCE.
    """

    spec: KernelSpec
    library: ctypes.CDLL


def compiler() -> str | None:
    """The path of a C++ compiler: that of $CXX, else the first of c++, g++ and clang++; None if there is none."""
    candidates = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((path for name in candidates if name and (path := shutil.which(name))), None)


def describe_compiler() -> str:
    """The path of the C++ compiler and its version, as it names itself; `none` without one."""
    path = compiler()
    if path is None:
        return "none"
    with contextlib.suppress(OSError):
        return f"{path}, {_compiler_version(path).decode(errors='replace').partition(chr(10))[0]}"
    return f"{path}, which does not run"


class Compilation(NamedTuple):
    """A compiler that runs, in a session of its own: the processes that it starts are ended with it.

    process: the compiler.
    target: the library, a temporary file.
    """

    process: subprocess.Popen[bytes]
    target: Path


_started: dict[str, Compilation] = {}
"""Compilations that nobody waits for yet, by cache key."""


def start_compiling(spec: KernelSpec, source: Path | None = None) -> None:
    """Start to compile the kernel `source`, by default SOURCE, for `spec` unless it is cached, and return at once.

    `load_kernel` waits for it, and reports a failure. If the process ends before, the compiler is stopped.
    """
    path = compiler()
    if path is None:
        return
    with contextlib.suppress(OSError):
        command = _command(path, spec, source or SOURCE)
        key = _cache_key(command)
        if key not in _started and _cached(key) is None:
            _started[key] = _start(command)


def load_kernel(
    spec: KernelSpec, source: Path | None = None, *, notify: Callable[[str], None] = lambda text: None
) -> Kernel:
    """The kernel `source`, by default SOURCE, for `spec`, from the cache or compiled into it, which `notify` announces.

    Raises OSError if there is no compiler or if it fails, FileError if the cache cannot be written.
    """
    path = compiler()
    if path is None:
        raise OSError("there is no C++ compiler")
    command = _command(path, spec, source or SOURCE)
    key = _cache_key(command)
    file = _cached(key)
    if file is None:
        notify("compiling a kernel for this config, once; some seconds ...")
        library = _finish(_started.pop(key) if key in _started else _start(command), path)
        file = cache_directory() / f"{key}-{_digest(library)}.so"
        _store(file, library)
    return Kernel(spec, ctypes.CDLL(str(file)))


def _command(path: str, spec: KernelSpec, source: Path) -> list[str]:
    return [path, OPTIMISATION, *FLAGS, *LIBRARY_FLAGS, *spec.definitions(), str(source)]


def _cached(key: str) -> Path | None:
    """The library of `key` in the cache whose contents have the digest in its name.

    A library that was truncated or replaced is not loaded: it could end the process. Processes that compile the same
    kernel at once write either the same file or files of different names.
    """
    for file in sorted(cache_directory().glob(f"{key}-*.so")):
        with contextlib.suppress(OSError):
            if file.stem == f"{key}-{_digest(file.read_bytes())}":
                return file
    return None


def _digest(library: bytes) -> str:
    return hashlib.sha256(library).hexdigest()[:32]


def cache_directory() -> Path:
    """The directory of compiled kernels: $MAML_CACHE, or `maml` in the user's cache directory."""
    own, shared = os.environ.get("MAML_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else Path(shared or Path.home() / ".cache") / "maml"


def _store(file: Path, library: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, library)
    except OSError as error:
        advice = "set MAML_CACHE to a directory that can be written, or use run.engine: eager"
        raise FileError(f"{file.parent}: kernel cache cannot be written: {error.strerror}; {advice}") from None


def _cache_key(command: Sequence[str]) -> str:
    """A digest of everything the library depends on: sources, command, compiler and processor.

    The processor is part of it because a library compiled with -march=native for another one may stop with SIGILL.
    """
    digest = hashlib.sha256()
    *constants, source = command
    sources = [file.read_bytes() for file in (Path(source), *HEADERS)]
    for item in (*sources, " ".join(constants).encode(), _compiler_version(command[0]), _processor()):
        digest.update(hashlib.sha256(item).digest())
    return digest.hexdigest()[:24]


def _start(command: Sequence[str]) -> Compilation:
    descriptor, name = tempfile.mkstemp(prefix="maml-kernel-", suffix=".so")
    os.close(descriptor)
    temporary_files.add(Path(name))
    try:
        return Compilation(_open([*command, "-o", name]), Path(name))
    except OSError:
        with _removed(Path(name)):
            raise


def _finish(compilation: Compilation, path: str) -> bytes:
    """The shared library; raises OSError with the first error of the compiler `path`."""
    with _removed(compilation.target):
        code, _, output = _wait(compilation.process, path)
        if code:
            lines = output.decode(errors="replace").strip().splitlines()
            reason = f"exit code {code}" if code > 0 else f"stopped by signal {-code}"
            errors = [line for line in lines if "error" in line] or lines[-1:] or [reason]
            raise OSError(f"{path} could not compile the kernel: {errors[0]}")
        library = compilation.target.read_bytes()
        if not library:
            raise OSError(f"{path} could not compile the kernel: it wrote no library")
        return library


@contextlib.contextmanager
def _removed(file: Path) -> Iterator[None]:
    """Remove the temporary `file` at the end of the block."""
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        temporary_files.discard(file)


@atexit.register
def _stop_started() -> None:
    """Stop the compilations that nobody waited for."""
    for process, target in _started.values():
        with _removed(target), process:
            _kill(process)
    _started.clear()


def run_compiler(command: Sequence[str]) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of the compiler; raises OSError if it takes longer than COMPILE_SECONDS."""
    return _wait(_open(command), command[0])


def _open(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def _wait(process: subprocess.Popen[bytes], path: str) -> tuple[int, bytes, bytes]:
    with process:
        try:
            stdout, stderr = process.communicate(timeout=COMPILE_SECONDS)
        except BaseException as error:
            _kill(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise OSError(f"{path} did not end within {COMPILE_SECONDS:g} seconds") from None
            raise
    return process.returncode, stdout, stderr


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _compiler_version(path: str) -> bytes:
    return run_compiler([path, "--version"])[1]


def _processor() -> bytes:
    """The model and instruction set of the processor, which -march=native depends on."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model", "flags", "Features"))})).encode()
    return f"{platform.machine()} {platform.processor()}".encode()
