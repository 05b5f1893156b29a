"""kill -9 of single processes of trainings that torchrun starts, and starts again."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from maml_cli.dev.soak.processes import ROOT, TIMED_OUT, Child, start, wait
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally, scaled
from maml_cli.dev.soak.trained import Fingerprint, fingerprint, remove, train_undisturbed
from maml_cli.interrupts import descendants

TRIES = 20
OPTIONS = (
    "--config=smoke",
    "--set=outer.steps=200",
    "--set=outer.tasks_per_step=12",
    "--set=run.eval_tasks=10",
    "--set=run.eval_every=50",
    "--set=run.log_every=5",
    "--set=run.checkpoint_every=20",
)
SECONDS = 240.0
"""Time limit of a training with its restarts."""


class Kind(NamedTuple):
    """A training that processes share: its options, and those with which one process gives the same bytes."""

    options: Sequence[str]
    alone: Sequence[str]


KINDS = (
    Kind(["--set=run.engine=eager"], ["--set=outer.task_blocks=12"]),
    Kind(["--set=run.engine=native", "--set=run.seeds=5"], ["--set=run.side_by_side=false"]),
    Kind(["--set=run.engine=eager", "--set=run.seeds=3"], ["--set=run.side_by_side=false"]),
)


def attack(scratch: Path, *, scale: float) -> SoakRow:
    """Kill one of 2 to 4 processes at a random moment, start-up included: torchrun starts all of them again.

    The run ends with the bytes of one process that was not disturbed, and at most the outer steps since the newest
    checkpoint are taken again.
    """
    tally, moments = Tally("kill -9 of one of 2 to 4 processes of torchrun"), random.Random(0)
    tries = scaled(TRIES, scale)
    kinds = [kind for kind in KINDS if "native" not in kind.options[0] or shutil.which("c++")][:tries]
    expected = [_undisturbed(scratch / f"alone-{index}", kind) for index, kind in enumerate(kinds)]
    for number in range(tries):
        kind, size = number % len(kinds), 2 + number % 3
        folder = scratch / f"run-{number}"
        folder.mkdir()
        line = f"{size} processes, {' '.join(kinds[kind].options)}"
        while not _kill_one(tally, folder, [*OPTIONS, *kinds[kind].options], size, moments, expected[kind], line):
            remove(folder / "run")
        remove(folder)
    return tally.row()


def _undisturbed(folder: Path, kind: Kind) -> Fingerprint | None:
    run, _ = train_undisturbed(folder, [*OPTIONS, *kind.options, *kind.alone])
    return fingerprint(run)


def _kill_one(
    tally: Tally,
    folder: Path,
    options: Sequence[str],
    size: int,
    moments: random.Random,
    expected: Fingerprint | None,
    line: str,
) -> bool:
    """Whether a process was killed before the end; failures are counted."""
    child = start(lambda: execute_torchrun(size, ["train", *options, "--out", "run"]), folder)
    ranks = _wait_for_ranks(child, size)
    delay = moments.uniform(0, 10)
    ended = time.monotonic() + delay
    while time.monotonic() < ended and not _is_complete(folder / "run"):
        time.sleep(0.01)
    saved = _last_step(folder / "run")
    with contextlib.suppress(ProcessLookupError, IndexError):
        os.kill(moments.choice(ranks), signal.SIGKILL)
    outcome = wait(child, seconds=SECONDS)
    if outcome.code == 0 and "resumed at outer step" not in outcome.err and "exitcode: -9" not in outcome.err:
        return False
    tally.tries += 1
    line = f"{line}, killed after {delay:.2f} s"
    resumed = [int(step.replace(",", "")) for step in re.findall(r"resumed at outer step ([\d,]+)", outcome.err)]
    if outcome.code == TIMED_OUT or "Traceback" in outcome.err or "[rank" in outcome.err:
        tally.fail("tracebacks", f"{line}: exit code {outcome.code}: {outcome.err[-300:]}")
    elif outcome.code or min(resumed, default=saved) < saved:
        tally.fail("losses", f"{line}: exit code {outcome.code}, resumed at {resumed} with checkpoint {saved}")
    elif fingerprint(folder / "run") != expected:
        tally.fail("changed", f"{line}: other bytes than one process")
    return True


def execute_torchrun(size: int, arguments: Sequence[str], options: Sequence[str] = ("--standalone",)) -> NoReturn:
    """Replace this process by torchrun with `size` processes on this machine that run `maml`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "torch.distributed.run", *options, "--max-restarts=3", f"--nproc-per-node={size}"]
    os.execve(sys.executable, [*words, "-m", "maml_cli", *arguments], environment)


def _wait_for_ranks(child: Child, size: int) -> list[int]:
    """The processes that torchrun started; fewer if it ended first."""
    limit = time.monotonic() + SECONDS
    while time.monotonic() < limit:
        ranks = [process for process in descendants(child.pid) if _is_rank(process)]
        if len(ranks) >= size or not Path(f"/proc/{child.pid}").exists():
            return ranks
        time.sleep(0.05)
    return []


def _is_rank(process: int) -> bool:
    try:
        return b"RANK=" in Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return False


def _last_step(run: Path) -> int:
    """The outer step of the newest checkpoint; 0 without one."""
    with contextlib.suppress(OSError, ValueError):
        return int(json.loads((run / "last.json").read_bytes())["step"])
    return 0


def _is_complete(run: Path) -> bool:
    return _last_step(run) == 200
