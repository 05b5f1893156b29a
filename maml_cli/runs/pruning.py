"""Pruning: old checkpoints of a run directory are removed, never one that resuming or evaluating it needs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maml_cli.errors import CheckpointError, FileError
from maml_cli.runs import directory
from maml_cli.runs.files import is_locked
from maml_cli.runs.listing import checkpoint_files, newest_checkpoint, read_config, step_of
from maml_cli.runs.load import newest_good_checkpoint, newest_good_file


class Pruning(NamedTuple):
    """The checkpoints of a run that can be removed.

    run: the run directory.
    files: to remove, oldest first.
    num_bytes: of these files.
    num_left: checkpoints that stay.
    problem: why none can be removed; empty if nothing prevents it.
    """

    run: Path
    files: Sequence[Path] = ()
    num_bytes: int = 0
    num_left: int = 0
    problem: str = ""


def plan_pruning(run: Path, *, keep_last: int) -> Pruning:
    """The checkpoints of `run` before the last `keep_last`, from 1, of which last.json names the newest.

    Never among them: the newest good one, that from which the run would be resumed, and those after the one of
    last.json. Nothing is removed from a run that a process trains, or that has no good checkpoint.
    """
    try:
        directory.check_files(run)
        if is_locked(run / ".lock"):
            return Pruning(run, problem=f"{run}: another process is training this run")
        return _plan(run, keep_last)
    except (CheckpointError, FileError) as error:
        return Pruning(run, problem=error.lines[0])


def prune(planned: Pruning, *, keep_last: int) -> Pruning:
    """Remove the checkpoints of `planned`, as far as they can still be removed, and return these.

    The run is locked meanwhile. SHA256SUMS is written first: a crash leaves checkpoints without a line in it, which
    verify themselves. Raises FileError if another process trains the run, OSError if a file cannot be removed.
    """
    with directory.training_lock(planned.run):
        current = _plan(planned.run, keep_last)
        removed = _pruning(planned.run, [file for file in current.files if file in planned.files])
        directory.remove_checkpoints(planned.run, removed.files)
        return removed


def _plan(run: Path, keep_last: int) -> Pruning:
    files = checkpoint_files(run)
    if not files:
        return Pruning(run)
    newest, _ = newest_checkpoint(run)
    last_step = step_of(newest)
    older = [file for file in files if file != newest and (last_step is None or (step_of(file) or 0) < last_step)]
    good = newest_good_file(run, [newest, *older])
    if good is None:
        return Pruning(run, problem=f"{run}: no good checkpoint; none is removed")
    needed = {good}
    if (config := read_config(run)) and (resumed := newest_good_checkpoint(run, config)[0]):
        needed.add(resumed.file)
    return _pruning(run, [file for file in reversed(older[keep_last - 1 :]) if file not in needed])


def _pruning(run: Path, files: Sequence[Path]) -> Pruning:
    return Pruning(run, files, sum(os.lstat(file).st_size for file in files), len(checkpoint_files(run)) - len(files))
