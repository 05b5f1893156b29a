"""Memory that this process can still take: the limits of the machine, of its control group and of the process."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from maml_cli.errors import ConfigError

CGROUPS = Path("/sys/fs/cgroup")
NO_LIMIT = 2**60
"""Limits from here on are none: control groups of version 1 write none as a very large number."""


def require_memory(needed: float, *, purpose: str, lower: str) -> None:
    """Raises ConfigError if `purpose` needs more bytes than are available: the process would be killed.

    `lower` names the keys or options to lower.
    """
    available = available_memory()
    if available is not None and needed > available:
        raise ConfigError(
            f"{purpose}: needs about {_gib(needed)} GiB of memory, this process has {_gib(available)}; lower {lower}"
        )


def available_memory() -> int | None:
    """Bytes that this process can allocate before it is killed or refused them; None where the system does not say."""
    limits = [*_machine(), *_control_groups(), *_process_limits()]
    return max(0, min(limits)) if limits else None


def _gib(size: float) -> str:
    """A size as GiB, with a decimal below 10."""
    return f"{size / 2**30:,.1f}" if size < 9.95 * 2**30 else f"{size / 2**30:,.0f}"


def _machine() -> Iterator[int]:
    """The memory that the system can free for a process, or else all of the machine's."""
    facts = _table(Path("/proc/meminfo"))
    if "MemAvailable:" in facts:
        yield facts["MemAvailable:"] * 1024
        return
    with contextlib.suppress(AttributeError, ValueError, OSError):
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _control_groups() -> Iterator[int]:
    """Bytes left in each control group around this process: its limit less its use, of which the file cache is free."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = CGROUPS if not controllers else CGROUPS / "memory"
        limit, usage = (
            ("memory.max", "memory.current") if not controllers else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            size, used = _number(folder / limit), _number(folder / usage)
            if size is not None and size < NO_LIMIT and used is not None:
                yield size - used + _table(folder / "memory.stat").get("inactive_file", 0)
            if folder == root:
                break


def _process_limits() -> Iterator[int]:
    """Bytes left by `ulimit -v` and `ulimit -d`."""
    try:
        import resource

        sizes = Path("/proc/self/statm").read_text(encoding="utf-8").split()
    except (ImportError, OSError):
        return
    for name, index in (("RLIMIT_AS", 0), ("RLIMIT_DATA", 5)):
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            yield limit - int(sizes[index]) * resource.getpagesize()


def _number(file: Path) -> int | None:
    """The number in a file; None for a file that is missing or has a word, such as `max`."""
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _table(file: Path) -> dict[str, int]:
    """The first number of each line by its name; empty for a file that is missing."""
    try:
        lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
