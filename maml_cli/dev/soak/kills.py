"""kill -9 of trainings at random moments, start-up and first evaluation included."""

import random
import shutil
from pathlib import Path

from maml_cli.dev.soak.processes import maml
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally, scaled
from maml_cli.dev.soak.trained import SHORT, Fingerprint, fingerprint, remove, train_undisturbed

ENGINES = ("eager", "reference", "native")
KILLS = 300
KILLS_OF_A_RUN = 3
FRESH_EVERY = 8
"""Every so many runs are killed as fresh interpreters, whose start-up takes most of their time."""
STARTUP_SECONDS = 2.5
MAX_RESUMES = 3


def attack(scratch: Path, *, scale: float) -> SoakRow:
    """Kill trainings, each some times in a row, and resume them to the end: bytes as if undisturbed.

    A training is started by `--resume auto` each time, as a scheduler would. Moments are uniform over its duration.
    """
    tally, moments = Tally("kill -9 of trainings"), random.Random(0)
    engines = ENGINES[: 1 if scale < 0.1 else 3]
    if shutil.which("c++") is None:
        engines = engines[:2]
    trainings = {engine: [*SHORT, f"--set=run.engine={engine}"] for engine in engines}
    undisturbed: dict[str, tuple[Fingerprint | None, float]] = {}
    for engine, options in trainings.items():
        run, _ = train_undisturbed(scratch / "warm-up", options)  # compiles and imports
        remove(scratch / "warm-up")
        run, seconds = train_undisturbed(scratch / "undisturbed" / engine, options)
        undisturbed[engine] = fingerprint(run), seconds
    for number in range(scaled(KILLS // KILLS_OF_A_RUN, scale)):
        engine = engines[number % len(engines)]
        expected, seconds = undisturbed[engine]
        fresh = scale >= 0.1 and number % FRESH_EVERY == 0
        folder = scratch / f"run-{number}"
        folder.mkdir()
        arguments = ["train", *trainings[engine], "-q", "--resume", "auto"]
        delays: list[float] = []
        while len(delays) < KILLS_OF_A_RUN:
            delay = moments.uniform(0, seconds + (STARTUP_SECONDS if fresh else 0))
            outcome = maml(arguments, folder, fresh=fresh, kill_after=delay)
            delays.append(round(delay, 4))
            if outcome.code == 0:  # it ended before its kill: not a try
                break
            tally.tries += 1
            tally.check_end(outcome, {-9}, f"{engine}, killed after {delays} s")
        _finish(tally, arguments, folder, expected, f"{engine}, killed after {delays} s{', fresh' * fresh}")
        remove(folder)
    return tally.row()


def _finish(tally: Tally, arguments: list[str], folder: Path, expected: Fingerprint | None, line: str) -> None:
    """Resume the run in `folder` until it ends, as a scheduler would, and compare its bytes."""
    for _ in range(MAX_RESUMES):
        outcome = maml(arguments, folder)
        if outcome.code == 0:
            break
    if not tally.check_end(outcome, {0, 2, 3, 4}, line):
        return
    if outcome.code:
        tally.fail("losses", f"{line}: not resumed: {outcome.err.strip()[:300]}")
    elif fingerprint(folder / outcome.out.strip()) != expected:
        tally.fail("changed", f"{line}: other bytes than undisturbed")
