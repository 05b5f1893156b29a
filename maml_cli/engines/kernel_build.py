"""The kernel for the CPU, kernel.cpp: compiled for one config on first use, and cached."""

import contextlib
import ctypes
import hashlib
import itertools
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from maml_cli.config import KERNEL_ACTIVATIONS, KERNEL_LOSSES, kernel_task_bytes
from maml_cli.errors import FileError
from maml_cli.runs import write_atomic

SOURCE = Path(__file__).with_name("kernel.cpp")
HEADERS = tuple(SOURCE.with_name(name) for name in ("network.h", "products.h"))
OPTIMISATION = "-O3"
"""Tests of small networks lower it: most of their time is compilation."""
FLAGS = ("-march=native", "-funroll-loops", "-fno-math-errno", "-fno-trapping-math", "-std=c++17")
LIBRARY_FLAGS = ("-shared", "-fPIC", "-pthread")

C_TYPES = {torch.float32: "float", torch.float64: "double"}


class KernelSpec(NamedTuple):
    """The compile-time constants of a kernel.

    dtype: float32 or float64, of all points, parameters and gradients.
    widths: units of each layer: the input (1), the hidden layers, the output (1).
    num_support, num_query: points of a task.
    inner_steps: steps of the inner loop, at least 1.
    activation, loss: of the network and of its points, of `KERNEL_ACTIVATIONS` and `KERNEL_LOSSES`.
    alpha_steps: alphas of each group, 1 (all inner steps share it) or `inner_steps`.
    per_parameter: whether each adapted parameter has its own alpha, instead of each group.
    learned: whether the outer loop learns alphas.
    positive: whether the learned value is log(alpha).
    groups: index of the alpha group of each tensor (weight and bias of each layer); -1: the tensor does not adapt.
    """

    dtype: torch.dtype
    widths: Sequence[int]
    num_support: int
    num_query: int
    inner_steps: int
    activation: str
    loss: str
    alpha_steps: int
    per_parameter: bool
    learned: bool
    positive: bool
    groups: Sequence[int]

    def definitions(self) -> list[str]:
        """The constants as arguments of the compiler."""
        values: dict[str, object] = {
            "REAL": C_TYPES[self.dtype],
            "WIDTHS": ",".join(map(str, self.widths)),
            "SUPPORT": self.num_support,
            "QUERY": self.num_query,
            "STEPS": self.inner_steps,
            "ACTIVATION": KERNEL_ACTIVATIONS.index(self.activation),
            "LOSS": KERNEL_LOSSES.index(self.loss),
            "ALPHAS": self.alpha_steps,
            "PER_PARAMETER": int(self.per_parameter),
            "LEARNED": int(self.learned),
            "POSITIVE": int(self.positive),
            "GROUPS": ",".join(map(str, self.groups)),
            "NUM_GROUPS": max(self.groups) + 1,
        }
        return [f"-D{name}={value}" for name, value in values.items()]

    @property
    def tensor_sizes(self) -> list[int]:
        """Elements of the weight and the bias of each layer."""
        return [size for ins, outs in itertools.pairwise(self.widths) for size in (ins * outs, outs)]

    @property
    def num_params(self) -> int:
        """Parameters of the network."""
        return sum(self.tensor_sizes)

    @property
    def num_values(self) -> int:
        """Meta-parameters of a run: the parameters of the network, then the alphas."""
        adapted = sum(size for size, group in zip(self.tensor_sizes, self.groups, strict=True) if group >= 0)
        return self.num_params + self.alpha_steps * (adapted if self.per_parameter else max(self.groups) + 1)

    @property
    def num_learned(self) -> int:
        """The first of these values, which have gradients and moments."""
        return self.num_values if self.learned else self.num_params

    def workspace_bytes(self) -> int:
        """Bytes that one thread works in; see `kernel_task_bytes`."""
        return kernel_task_bytes(
            self.widths,
            (self.num_support, self.num_query),
            inner_steps=self.inner_steps,
            alpha_steps=self.alpha_steps,
            learned=self.learned,
            curved=self.activation != "relu",
            itemsize=self.dtype.itemsize,
        )


class Kernel(NamedTuple):
    """A compiled kernel.

    spec: the constants it was compiled with.
    library: the shared library, whose function is `take_outer_steps`.
    """

    spec: KernelSpec
    library: ctypes.CDLL


def compiler() -> str | None:
    """The path of a C++ compiler: that of $CXX, else the first of c++, g++ and clang++; None if there is none."""
    candidates = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((path for name in candidates if name and (path := shutil.which(name))), None)


def load_kernel(spec: KernelSpec, *, notify: Callable[[str], None] = lambda text: None) -> Kernel:
    """The kernel for `spec`, from the cache or else compiled into it, which `notify` announces.

    Raises OSError if there is no compiler or if it fails, FileError if the cache cannot be written.
    """
    path = compiler()
    if path is None:
        raise OSError("there is no C++ compiler")
    command = [path, OPTIMISATION, *FLAGS, *LIBRARY_FLAGS, *spec.definitions()]
    file = cache_directory() / f"{_cache_key(command)}.so"
    if not file.exists():
        notify("compiling a kernel for this config, once; some seconds ...")
        _store(file, _compile(command))
    return Kernel(spec, ctypes.CDLL(str(file)))


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
    sources = [file.read_bytes() for file in (SOURCE, *HEADERS)]
    for item in (*sources, " ".join(command).encode(), _compiler_version(command[0]), _processor()):
        digest.update(hashlib.sha256(item).digest())
    return digest.hexdigest()[:24]


def _compile(command: Sequence[str]) -> bytes:
    """The shared library; raises OSError with the compiler's first error."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "kernel.so"
        result = subprocess.run([*command, str(SOURCE), "-o", str(target)], capture_output=True, text=True)
        if result.returncode:
            lines = result.stderr.strip().splitlines()
            errors = [line for line in lines if "error" in line] or lines[-1:] or [f"exit code {result.returncode}"]
            raise OSError(f"{command[0]} could not compile the kernel: {errors[0]}")
        return target.read_bytes()


def _compiler_version(path: str) -> bytes:
    return subprocess.run([path, "--version"], capture_output=True).stdout


def _processor() -> bytes:
    """The model and instruction set of the processor, which -march=native depends on."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model", "flags", "Features"))})).encode()
    return f"{platform.machine()} {platform.processor()}".encode()
