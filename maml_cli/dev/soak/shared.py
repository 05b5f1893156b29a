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
from maml_cli.errors import FileError
from maml_cli.interrupts import descendants
from maml_cli.runs import read_lines

TRIES = 20
LAST_STEP = 200
OPTIONS = (
    "--config=smoke",
    f"--set=outer.steps={LAST_STEP}",
    "--set=outer.tasks_per_step=12",
    "--set=run.eval_tasks=10",
    "--set=run.eval_every=50",
    "--set=run.log_every=5",
    "--set=run.checkpoint_every=20",
)
SECONDS = 240.0
"""Time limit of a training with its restarts."""
STARTUP_EVERY, STARTUP_SECONDS = 5, 4.0
"""Every so many kills come within the first seconds, the others at a random outer step."""


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
    """Kill one of 2 to 4 processes at a random outer step, or within its start: torchrun starts all of them again.

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
        is_early = number % STARTUP_EVERY == STARTUP_EVERY - 1
        moment = moments.uniform(0, STARTUP_SECONDS) if is_early else moments.randrange(LAST_STEP - 10)
        _kill_one(tally, folder, [*OPTIONS, *kinds[kind].options], size, moment, expected[kind], line)
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
    moment: float,
    expected: Fingerprint | None,
    line: str,
) -> None:
    """Kill one process after seconds, a float, or at an outer step, an integer; failures are counted."""
    tally.tries += 1
    line = f"{line}, killed {'at outer step' if isinstance(moment, int) else 'after seconds'} {moment:g}"
    child = start(lambda: execute_torchrun(size, ["train", *options, "--out", "run"]), folder)
    ranks = _wait_for_ranks(child, size)
    if isinstance(moment, int):
        _wait_for_step(folder / "run", moment)
    else:
        time.sleep(moment)
    saved = _last_step(folder / "run")
    try:
        os.kill(ranks[tally.tries % size], signal.SIGKILL)
    except (ProcessLookupError, IndexError):
        tally.fail("tracebacks", f"{line}: it ended before")
    outcome = wait(child, seconds=SECONDS)
    resumed = [int(step.replace(",", "")) for step in re.findall(r"resumed at outer step ([\d,]+)", outcome.err)]
    if outcome.code == TIMED_OUT or "Traceback" in outcome.err or "[rank" in outcome.err:
        tally.fail("tracebacks", f"{line}: exit code {outcome.code}: {outcome.err[-300:]}")
    elif outcome.code or min(resumed, default=saved) < saved:
        tally.fail("losses", f"{line}: exit code {outcome.code}, resumed at {resumed} with checkpoint {saved}")
    elif fingerprint(folder / "run") != expected:
        tally.fail("changed", f"{line}: other bytes than one process")


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


def _wait_for_step(run: Path, step: int) -> None:
    """Wait until the log of `run` has an outer step from `step` on."""
    limit = time.monotonic() + SECONDS
    while time.monotonic() < limit:
        with contextlib.suppress(FileError, FileNotFoundError):
            if any(record["step"] >= step for record in read_lines(run / "metrics.jsonl")):
                return
        time.sleep(0.01)
