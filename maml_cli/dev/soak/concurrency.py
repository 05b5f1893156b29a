"""Many processes at once on the same directory."""

from functools import partial
from pathlib import Path

from maml_cli.dev.soak.processes import Outcome, run_program, start, wait
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally, scaled
from maml_cli.dev.soak.trained import SHORT, fingerprint, fresh_copy, train_undisturbed

PROCESSES = 32
ROUNDS = 5
"""Repetitions of each kind with 32 processes."""
PAIRS = 100
"""Pairs of processes that resume the same run."""
BUSY = "another process is training"


def attack(scratch: Path, *, scale: float) -> SoakRow:
    """Processes that train, resume, evaluate and draw in the same directory at once."""
    tally = Tally("32 processes at once, two resumes at once")
    run, _ = train_undisturbed(scratch / "undisturbed")
    expected = fingerprint(run)
    processes = PROCESSES if scale >= 0.1 else 4
    for number in range(scaled(ROUNDS, scale)):
        folder = scratch / f"round-{number}"
        folder.mkdir()
        outcomes = run_at_once(["train", *SHORT, "-q"], folder, processes)
        tally.tries += processes
        for outcome in outcomes:
            tally.check_end(outcome, {0}, "trainings at once")
        runs = {outcome.out.strip() for outcome in outcomes}
        if len(runs) < processes:
            tally.fail("losses", f"{processes} trainings at once share {len(runs)} directories")
        for name in runs:
            if fingerprint(folder / name) != expected:
                tally.fail("changed", f"trainings at once: other bytes in {name}")
        for command in (["eval", "outputs/smoke", "--tasks", "20"], ["plot", "outputs/smoke", "--kind", "curve"]):
            tally.tries += processes
            for outcome in run_at_once(command, folder, processes):
                tally.check_end(outcome, {0}, f"{command[0]} at once")
        _resume_at_once(tally, run, folder / "outputs" / "cut", processes)
    for _ in range(scaled(PAIRS, scale)):
        _resume_at_once(tally, run, scratch / "pair", 2)
    return tally.row()


def run_at_once(arguments: list[str], folder: Path, count: int) -> list[Outcome]:
    """The outcomes of `count` processes that run `maml` with the same arguments in `folder` at the same time."""
    children = [start(partial(run_program, arguments), folder) for _ in range(count)]
    return [wait(child) for child in children]


def _resume_at_once(tally: Tally, run: Path, copy: Path, count: int) -> None:
    """Resume a run that was cut: one process does, or some one after the other, and the others are refused."""
    fresh_copy(run, copy)
    for file in sorted(copy.glob("checkpoints/*.pt"))[3:]:
        file.unlink()
    tally.tries += count
    outcomes = run_at_once(["train", "--resume", str(copy), "-q"], copy.parent, count)
    line = f"{count} resumes at once"
    for outcome in outcomes:
        if tally.check_end(outcome, {0, 3}, line) and outcome.code == 3 and BUSY not in outcome.err:
            tally.fail("losses", f"{line}: {outcome.err.strip()[:200]}")
    if not any(outcome.code == 0 for outcome in outcomes):
        tally.fail("losses", f"{line}: none of them trained")
    if fingerprint(copy) != fingerprint(run):
        tally.fail("changed", f"{line}: other bytes")
