"""Devices, threads, allocator and versions: everything that inspects or changes the process.

The private parts of PyTorch that are used here were verified on torch 2.13.
"""

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

import torch

from maml_cli import __version__
from maml_cli.errors import ConfigError

MIN_ACCELERATOR_WORK = 200_000_000
"""Multiply-adds of one outer step from which an accelerator is expected to be faster than one CPU core: with fewer,
launching its kernels takes longer than the arithmetic."""

PACKAGES = ("torch", "typer", "pydantic", "pyyaml", "matplotlib", "rich", "tqdm", "numpy", "scipy")


class Choice(NamedTuple):
    """A device or an engine.

    name: as in the config, such as `cpu` or `native`.
    reason: why it was chosen, as a phrase for the user.
    """

    name: str
    reason: str

    @property
    def device(self) -> torch.device:
        """The torch device of that name."""
        return torch.device(self.name)


def select_device(requested: str, *, work: int, needs_float64: bool = False) -> Choice:
    """The device for outer steps of `work` multiply-adds; raises ConfigError if `requested` is not on this machine."""
    present = available_devices()
    if requested != "auto":
        if requested not in present:
            raise ConfigError(f"device {requested}: not available here; there are auto, {', '.join(present)}")
        return Choice(requested, "as asked")
    accelerators = [name for name in present if name != "cpu" and not (name == "mps" and needs_float64)]
    if not accelerators:
        return Choice("cpu", "no accelerator that can run this is present")
    if work < MIN_ACCELERATOR_WORK:
        reason = f"an outer step of {work / 1e6:.1f} million multiply-adds is too small to gain from {accelerators[0]}"
        return Choice("cpu", reason)
    return Choice(accelerators[0], "present, and the work is large enough to gain from it")


def available_devices() -> list[str]:
    """The names that `--device` takes on this machine, fastest first."""
    present = []
    if torch.cuda.is_available():
        present.append("cuda")
    if torch.backends.mps.is_available():
        present.append("mps")
    return [*present, "cpu"]


def available_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(count: int) -> None:
    """Let PyTorch use `count` CPU threads in this process."""
    torch.set_num_threads(count)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """`count` PyTorch threads inside the block, and the number before it afterwards."""
    previous = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def keep_freed_memory() -> None:
    """Have glibc keep up to 1 GiB of freed memory for the next allocation; nothing happens with other C libraries.

    By default it returns the tensors of an outer step to the system, which clears every page again for the next one.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3  # of mallopt(3)
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_mmap_threshold, 2**25)
        mallopt(m_trim_threshold, 2**30)


def avoid_dynamo_import() -> None:
    """Use torch.optim without importing torch._dynamo, whose import takes 1.4 s, longer than a short training.

    torch.optim imports it to exclude three methods from compilation. Nothing here compiles them, so each is registered
    as its own excluded version. A torch without these private attributes is left as it is.
    """
    for name in ("add_param_group", "state_dict", "load_state_dict"):
        method = getattr(getattr(torch.optim.Optimizer, name, None), "__wrapped__", None)
        if method is not None and not hasattr(method, "__dynamo_disable"):
            setattr(method, "__dynamo_disable", method)


def machine_info() -> dict[str, str | int]:
    """Versions, devices, threads and CPU instruction set, for bug reports and for the methods section of a paper."""
    facts: dict[str, str | int] = {"maml": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            facts[name] = "not installed"
    facts["torch"] = torch.__version__  # with the build, such as +cpu
    facts |= {
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "executable": sys.executable,
        "devices": ", ".join(available_devices()),
        "cpu cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),  # of evaluation; training uses run.threads
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
    }
    if torch.cuda.is_available():
        facts["cuda"] = f"{torch.version.cuda}, {torch.cuda.get_device_name()}"
    return facts
