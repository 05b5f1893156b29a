"""Contenders of the benchmark as processes: started together, verified, and timed in turns."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from maml_cli.dev import other_libraries
from maml_cli.dev.benchmark_document import Timing

Process = subprocess.Popen[str]


class Contender(NamedTuple):
    """An engine, another library or `MULTIPLY_ADDS`, on the preset `config` with `overrides`."""

    name: str
    overrides: Sequence[str] = ()
    config: str = "finn-10shot"


def time_verified(contenders: Sequence[Contender], *, rounds: int, seconds: float) -> list[Timing]:
    """The timings of `time_outer_steps`, with each contender's distance from the reference engine, measured first."""
    return _measure(contenders, ("verify", "warm-up"), rounds=rounds, seconds=seconds)


def time_outer_steps(contenders: Sequence[Contender], *, rounds: int, seconds: float) -> list[Timing]:
    """Milliseconds per outer step of each contender in each of `rounds`, in which all take turns.

    All processes exist at the same time, and only one of them computes. A contender that fails has a `missing` reason.
    """
    return _measure(contenders, ("warm-up",), rounds=rounds, seconds=seconds)


def _measure(
    contenders: Sequence[Contender], preparation: Sequence[str], *, rounds: int, seconds: float
) -> list[Timing]:
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_worker(contender)) for contender in contenders]
        prepared: list[dict[str, float]] = [{} for _ in contenders]
        for ask, values in zip(workers, prepared, strict=True):
            for request in preparation:
                values |= ask(request) or {}
        replies: list[list[dict[str, float]]] = [[] for _ in contenders]
        for _ in range(rounds):
            for ask, measured in zip(workers, replies, strict=True):
                reply = ask(f"time {seconds}")
                measured += [reply] if reply else []
    return [_timing(*measured) for measured in zip(contenders, prepared, replies, strict=True)]


def _timing(contender: Contender, prepared: dict[str, float], rounds: Sequence[dict[str, float]]) -> Timing:
    return Timing(
        contender.name,
        contender.config,
        tuple(contender.overrides),
        wall=tuple(reply["wall"] for reply in rounds),
        processor=tuple(reply["processor"] for reply in rounds),
        distance=prepared.get("distance"),
        memory_mib=prepared.get("memory_mib"),
        missing=None if rounds else _why_missing(contender.name),
    )


def _why_missing(name: str) -> str:
    library = other_libraries.LIBRARIES.get(name)
    package = library.package if library else None
    return f"{package} is not installed" if package and not importlib.util.find_spec(package) else "failed"


@contextlib.contextmanager
def _worker(contender: Contender) -> Iterator[Callable[[str], dict[str, float] | None]]:
    """A bench_worker for `contender`, on one core unless run.threads says more, as a function from request to reply.

    The reply is None once the process has ended.
    """
    one_thread = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    command = [sys.executable, "-W", "ignore", "-m", "maml_cli.dev.bench_worker", json.dumps(contender._asdict())]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | one_thread,
    )
    try:
        yield lambda request: _ask(process, request)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _ask(process: Process, request: str) -> dict[str, float] | None:
    assert process.stdin and process.stdout
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(f"{request}\n")
        process.stdin.flush()
    for line in process.stdout:
        if line.startswith("{"):
            reply: dict[str, float] = json.loads(line)
            return reply
    return None
