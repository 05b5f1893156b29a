"""Undisturbed trainings that attacks compare with: the bytes of a run, and copies of it."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maml_cli.dev.soak.processes import maml

SHORT = (
    "--config=smoke",
    "--set=outer.steps=30",
    "--set=outer.tasks_per_step=4",
    "--set=run.eval_tasks=10",
    "--set=run.eval_every=10",
    "--set=run.log_every=3",
    "--set=run.checkpoint_every=4",
)
"""Options of a training of a fraction of a second, with evaluations, log lines and checkpoints out of phase."""


class Fingerprint(NamedTuple):
    """The bytes that equal trainings share.

    metrics: SHA-256 of metrics.jsonl.
    checkpoint: SHA-256 of the newest checkpoint, with its name.
    """

    metrics: str
    checkpoint: str


def train_undisturbed(folder: Path, options: Sequence[str] = SHORT) -> tuple[Path, float]:
    """The run of a training in `folder`, and its seconds; raises RuntimeError if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    outcome = maml(["train", *options, "-q"], folder)
    if outcome.code:
        raise RuntimeError(f"an undisturbed training failed: {outcome.err}")
    return folder / outcome.out.strip(), outcome.seconds


def fingerprint(run: Path) -> Fingerprint | None:
    """The bytes of `run`; None if it has no metrics or no checkpoint."""
    files = sorted(run.glob("checkpoints/step-*.pt"))
    if not files or not (run / "metrics.jsonl").is_file():
        return None
    metrics, newest = ((run / "metrics.jsonl").read_bytes(), files[-1].read_bytes())
    return Fingerprint(_digest(metrics), f"{files[-1].name} {_digest(newest)}")


def tree_digests(folder: Path, *, without: str | None = None) -> dict[str, str]:
    """SHA-256 of each regular file below `folder`, by relative path; links are not followed.

    Directories of the name `without` are left out.
    """
    digests = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != without]
        for name in names:
            file = Path(parent) / name
            if not file.is_symlink() and file.is_file():
                digests[str(file.relative_to(folder))] = _digest(file.read_bytes())
    return digests


def fresh_copy(run: Path, target: Path) -> Path:
    """Replace `target` by a copy of `run`."""
    remove(target)
    return Path(shutil.copytree(run, target))


def remove(folder: Path) -> None:
    """Remove `folder` with everything in it, if it exists."""
    shutil.rmtree(folder, ignore_errors=True)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
