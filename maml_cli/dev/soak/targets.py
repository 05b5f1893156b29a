"""Trainings that attacks end before their last outer step, and their resumption as by a scheduler."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maml_cli.dev.soak.processes import maml
from maml_cli.dev.soak.tally import Tally
from maml_cli.dev.soak.trained import SHORT, Fingerprint, fingerprint, remove, train_undisturbed

ENGINES = ("eager", "reference", "native")
FRESH_EVERY = 8
"""Every so many trainings are fresh interpreters, whose start-up takes most of their time."""
STARTUP_SECONDS = 2.5
"""Duration of the start-up of a fresh interpreter, about."""
MAX_RESUMES = 3


class Target(NamedTuple):
    """A training that is ended early.

    arguments: of `maml`; they start the run, or resume it.
    expected: the bytes of its undisturbed run.
    seconds: the duration of that.
    """

    arguments: Sequence[str]
    expected: Fingerprint | None
    seconds: float


def make_targets(scratch: Path, *, scale: float, options: Sequence[str] = ()) -> dict[str, Target]:
    """A target for each engine, with the `options` of a command; in a short form, for the first engine alone."""
    engines = ENGINES[: 1 if scale < 0.1 else 3]
    if shutil.which("c++") is None:
        engines = engines[:2]
    targets = {}
    for engine in engines:
        training = [*SHORT, f"--set=run.engine={engine}"]
        run, _ = train_undisturbed(scratch / "warm-up", training)  # compiles and imports
        remove(scratch / "warm-up")
        run, seconds = train_undisturbed(scratch / "undisturbed" / engine, training)
        arguments = ["train", *training, "-q", "--resume", "auto", *options]
        targets[engine] = Target(arguments, fingerprint(run), seconds)
    return targets


def is_fresh(number: int, *, scale: float) -> bool:
    """Whether training `number` of an attack runs in a fresh interpreter; none does in a short form."""
    return scale >= 0.1 and number % FRESH_EVERY == 0


def finish(tally: Tally, target: Target, folder: Path, line: str) -> None:
    """Resume the run in `folder` until it ends, as a scheduler would, and compare its bytes."""
    for _ in range(MAX_RESUMES):
        outcome = maml(target.arguments, folder)
        if outcome.code == 0:
            break
    if not tally.check_end(outcome, {0, 2, 3, 4}, line):
        return
    if outcome.code:
        tally.fail("losses", f"{line}: not resumed: {outcome.err.strip()[:300]}")
    elif fingerprint(folder / outcome.out.strip()) != target.expected:
        tally.fail("changed", f"{line}: other bytes than undisturbed")
