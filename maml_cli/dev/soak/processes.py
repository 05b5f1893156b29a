"""Processes of `maml`: forks of this process, which has imported PyTorch, or fresh interpreters.

A fork starts in milliseconds, a fresh interpreter in seconds. Before a fork, PyTorch must not have computed gradients
on an accelerator.
"""

import contextlib
import importlib
import os
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch

from maml_cli.cli.app import main

ROOT = Path(__file__).resolve().parents[3]
TIMED_OUT = -99
"""Exit code of a process that was ended because it exceeded its time."""
SECONDS = 120.0
"""Time limit of a process: some of them share a core with others."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a process to stop."""


def preload() -> None:
    """Import the modules that commands import, so that forks need not, and let PyTorch use one thread."""
    torch.set_num_threads(1)
    for name in ("torch._dynamo", "maml_cli.training", "maml_cli.evaluation", "maml_cli.reporting.run_figures"):
        importlib.import_module(name)


class Child(NamedTuple):
    """A running process.

    pid: its number, also that of its process group.
    out, err: the reading ends of its standard output and standard error.
    started: the clock at its start, in seconds.
    """

    pid: int
    out: int
    err: int
    started: float


class Sending(NamedTuple):
    """A signal that a process gets.

    seconds: its moment, after the start of the process.
    number: the signal.
    """

    seconds: float
    number: signal.Signals


class Outcome(NamedTuple):
    """A process that ended.

    code: its exit code, minus the number of the signal that ended it, or TIMED_OUT.
    out, err: its standard output and standard error.
    seconds: its duration.
    """

    code: int
    out: str
    err: str
    seconds: float


def start(body: Callable[[], object], folder: Path) -> Child:
    """Fork a process that runs `body` in `folder`, in a process group of its own, and exits with its exit code.

    Signals have their default action until `body` handles them.
    """
    reading_out, writing_out = os.pipe()
    reading_err, writing_err = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks of processes that have threads
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # the child must not return by a KeyboardInterrupt
        pid = os.fork()
    if pid == 0:
        _run_child(body, folder, writing_out, writing_err)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.close(writing_out)
    os.close(writing_err)
    return Child(pid, reading_out, reading_err, time.perf_counter())


def wait(child: Child, *, seconds: float = SECONDS, signals: Sequence[Sending] = ()) -> Outcome:
    """The outcome of `child`, which gets `signals`, and whose group is ended after `seconds`."""
    streams: dict[int, bytes] = {child.out: b"", child.err: b""}
    opened, pending, timed_out = set(streams), sorted(signals), False
    while opened:
        limit = min([seconds, *(sending.seconds for sending in pending)])
        remaining = child.started + limit - time.perf_counter()
        ready = select.select(list(opened), [], [], max(0.0, remaining))[0]
        if not ready and limit == seconds:
            timed_out = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            break
        if not ready:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, pending.pop(0).number)
        for stream in ready:
            data = os.read(stream, 1 << 16)
            streams[stream] += data
            if not data:
                opened.discard(stream)
    _, status = os.waitpid(child.pid, 0)
    for stream in streams:
        os.close(stream)
    code = TIMED_OUT if timed_out else os.waitstatus_to_exitcode(status)
    out, err = (streams[stream].decode(errors="replace") for stream in (child.out, child.err))
    return Outcome(code, out, err, time.perf_counter() - child.started)


def maml(
    arguments: Sequence[object],
    folder: Path,
    *,
    prepare: Callable[[], object] = lambda: None,
    fresh: bool = False,
    seconds: float = SECONDS,
    signals: Sequence[Sending] = (),
) -> Outcome:
    """Run `maml` with `arguments` in `folder`: after `prepare`, in a fork or a fresh interpreter."""
    words = [str(argument) for argument in arguments]

    def body() -> None:
        prepare()
        execute(words) if fresh else run_program(words)

    return wait(start(body, folder), seconds=seconds, signals=signals)


def run_program(arguments: Sequence[str]) -> None:
    """Run `maml` as the program of this process, which ends after it."""
    sys.argv[:] = ["maml", *arguments]
    main()


def execute(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by a fresh interpreter that runs `maml`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    os.execve(sys.executable, [sys.executable, "-m", "maml_cli", *arguments], environment)


def _run_child(body: Callable[[], object], folder: Path, out: int, err: int) -> NoReturn:
    """Run `body` and exit, without returning to the code of the parent."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        body()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
