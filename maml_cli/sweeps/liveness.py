"""Live workers: a lock that ends with the process, and a heartbeat where processes do not share a directory.

A worker locks a file of its own in the sweep's directory. Whoever sees that file unlocked knows that the worker has
ended, however it ended. Workers on machines without that directory are known by a number in the storage that grows: one
that has not grown for SECONDS_UNTIL_DEAD belongs to a worker that has ended.
"""

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import FrozenTrial

from maml_cli.runs import exclusive_lock, is_locked, make_folder
from maml_cli.sweeps.storage import Store

WORKERS = ".workers"
WORKER, BEAT = "worker", "beat"
"""Attributes of a trial: the worker that trains it, and its heartbeat."""
SECONDS_BETWEEN_BEATS = 15.0
SECONDS_UNTIL_DEAD = 60.0


@contextlib.contextmanager
def worker_lock(directory: Path) -> Iterator[str]:
    """The name of a new worker, whose file is locked as long as the block and its process last."""
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    file = _lock_file(directory, name)
    make_folder(file.parent)
    with exclusive_lock(file, busy=f"{file}: locked by another process"):
        yield name
    file.unlink(missing_ok=True)


@dataclass
class Watch:
    """The liveness of workers as seen by this process.

    directory: of the sweep.
    seen: the worker and heartbeat of each running trial, and the time in seconds at which they were first seen.
    """

    directory: Path
    seen: dict[int, tuple[object, float]] = field(default_factory=dict)

    def is_alive(self, trial: FrozenTrial) -> bool | None:
        """Whether the worker of a running trial lives; None while that is not known yet."""
        worker = trial.user_attrs.get(WORKER)
        if worker is not None and (file := _lock_file(self.directory, worker)).exists():
            return is_locked(file)
        state = (worker, trial.user_attrs.get(BEAT))
        before, since = self.seen.setdefault(trial.number, (state, time.monotonic()))
        if before != state:
            self.seen[trial.number] = (state, time.monotonic())
            return True
        return False if time.monotonic() - since > SECONDS_UNTIL_DEAD else None


@contextlib.contextmanager
def heartbeat(store: Store, number: int) -> Iterator[threading.Event]:
    """A thread that lets the heartbeat of trial `number` of Optuna's grow, where others cannot see the lock.

    The event is set once the trial has been taken from this worker, which was thought dead.
    """
    taken, ended = threading.Event(), threading.Event()
    if store.is_shared_directory:
        yield taken
        return

    def beat() -> None:
        count = 0
        while not ended.wait(SECONDS_BETWEEN_BEATS):
            count += 1
            try:
                store.storage.set_trial_user_attr(store.trial_id(number), BEAT, count)
            except RuntimeError:  # the trial is finished
                taken.set()
                return
            except Exception:  # the database does not answer; the next heartbeat may reach it
                continue

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        ended.set()
        thread.join()


def _lock_file(directory: Path, worker: str) -> Path:
    return directory / WORKERS / f"{os.path.basename(worker)}.lock"
