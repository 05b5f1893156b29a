"""Worker processes on this machine: the same command several times, joined to one sweep."""

import contextlib
import os
import signal
import subprocess
import sys
import time

from maml_cli.interrupts import interrupts_blocked
from maml_cli.sweeps.record import Sweep
from maml_cli.training import catch_stop

STORAGE_VARIABLE = "MAML_SWEEP_STORAGE"
"""Environment variable with the URL of the storage: passwords do not show in the list of processes."""
SECONDS_BETWEEN_LOOKS = 0.2


def run_jobs(sweep: Sweep, jobs: int, url: str | None, *, quiet: bool) -> int:
    """Join `jobs` processes to a sweep and wait for their end; the exit code of one that a signal stopped, else 0.

    A signal to this process is passed on, so that each of them saves and stops.
    """
    command = [sys.executable, "-m", "maml_cli", "sweep", "--resume", str(sweep.directory.absolute()), "--worker"]
    command += ["--quiet"] if quiet else []
    environment = os.environ | ({STORAGE_VARIABLE: url} if url else {})
    with catch_stop() as stop:
        with interrupts_blocked():  # Ctrl-C reaches them as SIGTERM, and this process alone answers it with a line
            processes = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(jobs)]
        is_passed_on = False
        while any(process.poll() is None for process in processes):
            if stop() and not is_passed_on:
                is_passed_on = True
                for process in processes:
                    with contextlib.suppress(ProcessLookupError):
                        process.send_signal(signal.SIGTERM)
            time.sleep(SECONDS_BETWEEN_LOOKS)
        if stop():
            return stop.exit_code
    codes = [process.returncode for process in processes]
    return next((code for code in codes if code > 128), 0)
