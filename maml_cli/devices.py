"""Which device a run computes on, and why."""

import contextlib
import ctypes
from typing import NamedTuple

import torch

from maml_cli.errors import ConfigError

# Multiply-adds of one outer step from which an accelerator can be expected to beat one CPU core: below, launching
# its kernels takes longer than the arithmetic.
WORTH_AN_ACCELERATOR = 200_000_000


class Choice(NamedTuple):
    """A device, or an engine, by its name; and the reason for it, in words."""

    name: str
    reason: str

    @property
    def device(self) -> torch.device:
        """The device of that name."""
        return torch.device(self.name)


def choose(requested: str, *, work: int, needs_float64: bool = False) -> Choice:
    """The device to use for outer steps of `work` multiply-adds; raises ConfigError if `requested` is not here."""
    present = available()
    if requested != "auto":
        if requested not in present:
            raise ConfigError(f"device {requested} is not available here; --device takes auto, {', '.join(present)}")
        return Choice(requested, "as asked")
    accelerators = [name for name in present if name != "cpu" and not (name == "mps" and needs_float64)]
    if not accelerators:
        return Choice("cpu", "no accelerator that can run this is present")
    if work < WORTH_AN_ACCELERATOR:
        reason = f"an outer step of {work / 1e6:.1f} million multiply-adds is too small to gain from {accelerators[0]}"
        return Choice("cpu", reason)
    return Choice(accelerators[0], "present, and the work is large enough to gain from it")


def available() -> list[str]:
    """The names that `--device` takes on this machine, fastest first."""
    found = []
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def keep_memory() -> None:
    """Have the C library keep up to a GiB of what is freed, where it is glibc.

    Else it gives the memory of an outer step back at its end, and fetches it again page by page in the next.
    """
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**30)
        mallopt(mmap_threshold, 2**25)
