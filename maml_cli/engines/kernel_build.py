"""A kernel for the CPU, compiled for one config on first use: many outer steps in one call, tasks in the cache.

native.cpp says what it computes; here it is compiled, loaded and fed. Values go in and come back as the tensors that
every engine shares, so that a run may change engines at any step.
"""

import contextlib
import ctypes
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core import TaskBatch
from maml_cli.errors import FileError
from maml_cli.runs import write_atomic

SOURCE = Path(__file__).with_name("kernel.cpp")
OPTIMISED = ("-O3", "-march=native", "-funroll-loops", "-fno-math-errno", "-fno-trapping-math")
FLAGS = ("-std=c++17", *OPTIMISED, "-shared", "-fPIC", "-pthread")
ACTIVATIONS = ("relu", "tanh", "sigmoid", "sin", "softplus", "silu")
LOSSES = ("mse", "l1", "huber")
OPTIMIZERS = ("sgd", "adam", "adamw")
REALS = {torch.float32: "float", torch.float64: "double"}


class KernelSpec(NamedTuple):
    """All that shapes the loops of a kernel: `groups` has the alpha of each tensor, -1 where it does not adapt."""

    dtype: torch.dtype
    widths: Sequence[int]
    num_support: int
    num_query: int
    steps: int
    activation: str
    loss: str
    num_alphas: int
    per_parameter: bool
    learned: bool
    positive: bool
    groups: Sequence[int]

    def definitions(self) -> list[str]:
        """What the compiler is told."""
        values: dict[str, object] = {
            "REAL": REALS[self.dtype],
            "WIDTHS": ",".join(map(str, self.widths)),
            "SUPPORT": self.num_support,
            "QUERY": self.num_query,
            "STEPS": self.steps,
            "ACTIVATION": ACTIVATIONS.index(self.activation),
            "LOSS": LOSSES.index(self.loss),
            "ALPHAS": self.num_alphas,
            "PER_PARAMETER": int(self.per_parameter),
            "LEARNED": int(self.learned),
            "POSITIVE": int(self.positive),
            "GROUPS": ",".join(map(str, self.groups)),
            "NUM_GROUPS": max(self.groups) + 1,
        }
        return [f"-D{name}={value}" for name, value in values.items()]

    def memory(self) -> int:
        """About how many bytes one thread works in."""
        pairs = [(fan_in + 1) * (fan_out + 16) for fan_in, fan_out in zip(self.widths, self.widths[1:], strict=False)]
        values = sum(width + 16 for width in self.widths[1:-1]) * (self.num_support * 5 + self.num_query * 5)
        alphas = 2 * self.num_alphas
        return (sum(pairs) * (3 * self.steps + 8 + alphas) + values * (self.steps + 2)) * self.dtype.itemsize


class CallArgs(ctypes.Structure):
    """What a call computes with: the struct of the same name in native.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("num_steps", "num_runs", "num_tasks", "num_threads")),
        *((name, ctypes.c_void_p) for name in ("x", "y", "noise", "weights", "second_order", "rates")),
        ("optimizers", ctypes.c_int32 * 2),
        ("clip_norm", ctypes.c_double),
        ("clip_task_norm", ctypes.c_double),
        ("leave_out", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("held", "first", "second")),
        ("moments", ctypes.c_int64),
        *(
            (name, ctypes.c_void_p)
            for name in ("gradients", "going", "loss", "norm", "loss_sum", "left_out", "completed")
        ),
    )


def compiler() -> str | None:
    """The C++ compiler of this machine: that of $CXX, or the first there is."""
    named = os.environ.get("CXX")
    return next((found for name in (named, "c++", "g++", "clang++") if name and (found := shutil.which(name))), None)


def load_kernel(shape: KernelSpec, *, say: Callable[[str], None] = lambda text: None) -> ctypes.CDLL:
    """The kernel for `shape`, compiled unless that was done before; raises OSError if it cannot be,
    FileError if the cache directory cannot be written."""
    with_what = compiler()
    if with_what is None:
        raise OSError("no C++ compiler is present")
    command = [with_what, *FLAGS, *shape.definitions()]
    source = SOURCE.read_bytes()
    # For one machine: -march=native means another thing on the next.
    parts = [source, " ".join(command).encode(), _version(with_what), _processor()]
    file = cache_directory() / f"{hashlib.sha256(b'|'.join(parts)).hexdigest()[:24]}.so"
    if not file.exists():
        say("compiling a kernel for this config, once; some seconds ...")
        _store(file, _compile(command))
    return ctypes.CDLL(str(file))


def cache_directory() -> Path:
    """Where compiled kernels are kept: $MAML_CACHE, or `maml` in the user's cache directory."""
    own, shared = os.environ.get("MAML_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else Path(shared or Path.home() / ".cache") / "maml"


def _store(file: Path, library: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, library)
    except OSError as error:
        advice = "set MAML_CACHE to a directory that can be written, or use run.engine: eager"
        raise FileError(f"{file.parent}: kernel cache cannot be written: {error.strerror}; {advice}") from None


def _compile(command: Sequence[str]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "kernel.so"
        done = subprocess.run([*command, str(SOURCE), "-o", str(target)], capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise OSError(f"{command[0]} could not compile it: {said[-1]}")
        return target.read_bytes()


def _version(name: str) -> bytes:
    return subprocess.run([name, "--version"], capture_output=True).stdout


def _processor() -> bytes:
    """What -march=native looks at."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model", "flags", "Features"))})).encode()
    return f"{platform.machine()} {platform.processor()}".encode()


class CallOptions(NamedTuple):
    """How the outer steps of one call are taken, apart from their tasks; arrays as native.cpp has them."""

    weights: Tensor
    second_order: Tensor
    rates: Tensor
    noise: Tensor | None
    clip_norm: float | None
    clip_task_norm: float | None
    optimizers: Sequence[str]
    num_threads: int


class KernelState(NamedTuple):
    """What a call reads and changes, a row for each run: what is learned, with what is not after it; the moments of
    Adam; the sums of losses and of tasks left out. Runs that are not `going` stay as they are."""

    values: Tensor
    first_moments: Tensor
    second_moments: Tensor
    loss_sum: Tensor
    skipped_tasks: Tensor
    active: Tensor
    adam_steps: int


class CallResult(NamedTuple):
    """Of each run: loss, norm of the gradient and gradient of its last step, and the steps it did until one was not
    finite."""

    loss: Tensor
    norm: Tensor
    gradients: Tensor
    completed: Tensor


def run_kernel(library: ctypes.CDLL, batch: TaskBatch, call: CallOptions, held: KernelState) -> CallResult:
    """The outer steps of `batch`, (N, R, B, ...); mutates `held`, and only it."""
    x, y = (torch.cat([a, b], dim=-2).contiguous() for a, b in zip(batch.support, batch.query, strict=True))
    num_steps, num_runs, num_tasks = x.shape[:3]
    loss = torch.zeros(num_runs, dtype=torch.float64)
    found = CallResult(
        loss, loss.clone(), torch.zeros_like(held.first_moments), torch.zeros(num_runs, dtype=torch.int64)
    )
    arrays = {
        **{"x": x, "y": y, "noise": call.noise, "weights": call.weights, "second_order": call.second_order},
        **{"rates": call.rates, "held": held.values, "first": held.first_moments, "second": held.second_moments},
        **{"loss_sum": held.loss_sum, "left_out": held.skipped_tasks, "going": held.active},
        **found._asdict(),
    }
    block = CallArgs(
        **{name: None if array is None else array.data_ptr() for name, array in arrays.items()},
        num_steps=num_steps,
        num_runs=num_runs,
        num_tasks=num_tasks,
        num_threads=call.num_threads,
        optimizers=(ctypes.c_int32 * 2)(*(OPTIMIZERS.index(name) for name in call.optimizers)),
        clip_norm=math.inf if call.clip_norm is None else call.clip_norm,
        clip_task_norm=math.inf if call.clip_task_norm is None else call.clip_task_norm,
        leave_out=int(call.clip_task_norm is not None),
        moments=held.adam_steps,
    )
    library.advance(ctypes.byref(block))
    return found
