"""Processes that may not write large files: RLIMIT_FSIZE."""

import resource
from collections.abc import Callable, Sequence
from pathlib import Path

from maml_cli.dev.soak.processes import maml
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally
from maml_cli.dev.soak.trained import SHORT, Fingerprint, fingerprint, remove, train_undisturbed

TRAIN = ["train", *SHORT, "--set=run.engine=eager", "-q", "--resume", "auto", "--out", "run"]
READERS: dict[str, Sequence[str]] = {
    "eval": ["eval", "run", "--tasks", "20"],
    "plot": ["plot", "run", "--kind", "curve"],
    "compare": ["compare", "run", "run", "--tasks", "20"],
}


def attack(scratch: Path, *, scale: float) -> SoakRow:
    """Limit the size of files to every KiB up to the largest file: one error each, and nothing is lost."""
    tally = Tally("RLIMIT_FSIZE at every KiB")
    run, _ = train_undisturbed(scratch, [*SHORT, "--set=run.engine=eager"])
    expected = fingerprint(run)
    largest = max(file.stat().st_size for file in run.rglob("*") if file.is_file())
    stride = round(1 / min(1, 4 * scale))
    for number, kibibytes in enumerate(range(0, largest // 1024 + 3, stride)):
        limit, line = _limit(kibibytes * 1024), f"limit of {kibibytes} KiB"
        folder = scratch / f"limit-{kibibytes}"
        folder.mkdir()
        limited_training(tally, folder, expected, line, prepare=limit)
        resume_to_the_end(tally, folder, expected, line)
        for name in READERS if scale >= 1 else [[*READERS][number % 3]]:
            tally.tries += 1
            tally.check_end(maml(READERS[name], folder, prepare=limit), {0, 3}, f"{line}, {name}")
            check_no_temporary_files(tally, folder, f"{line}, {name}")
        if fingerprint(folder / "run") != expected:
            tally.fail("changed", f"{line}: the run differs after commands that read it")
        remove(folder)
    return tally.row()


def limited_training(
    tally: Tally, folder: Path, expected: Fingerprint | None, line: str, *, prepare: Callable[[], object]
) -> None:
    """Train in `folder` within limits that `prepare` sets: it ends with exit code 3, or with the bytes expected."""
    tally.tries += 1
    outcome = maml(TRAIN, folder, prepare=prepare)
    if tally.check_end(outcome, {0, 3}, line) and outcome.code == 0 and fingerprint(folder / "run") != expected:
        tally.fail("losses", f"{line}: exit code 0 although the run is not complete")
    check_no_temporary_files(tally, folder, line)


def resume_to_the_end(tally: Tally, folder: Path, expected: Fingerprint | None, line: str) -> None:
    """Resume the training in `folder` without limits: the bytes are those of one without limits."""
    outcome = maml(TRAIN, folder)
    if outcome.code:
        tally.fail("losses", f"{line}: not resumed: {outcome.err.strip()[:300]}")
    elif fingerprint(folder / "run") != expected:
        tally.fail("changed", f"{line}: other bytes after resuming")


def check_no_temporary_files(tally: Tally, folder: Path, line: str) -> None:
    """Count an attempt that left a temporary file below `folder`."""
    files = [str(file.relative_to(folder)) for file in folder.rglob(".*.tmp-*")]
    if files:
        tally.fail("losses", f"{line}: left {files}")


def _limit(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
