"""Writing run directories: a crash at any moment leaves a state from which the run can be resumed.

config.yaml                      resolved, enough to repeat the run
metrics.jsonl                    losses and validation errors, the same bytes whenever the run is repeated
timing.jsonl                     engines, times and rates, a divergence
checkpoints/step-00001000.pt     and their SHA256SUMS, as `sha256sum -c` reads it
last.json                        names the newest checkpoint and its SHA-256
plots/, eval.json                results of `maml plot` and `maml eval`, of the outer step at that time
report.html, params.npz          those of `maml report` and `maml export params`
tensorboard/seed-0/              events of each seed, where run.tensorboard is true
"""

import json
import os
import stat
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from maml_cli.config import Config, plain_yaml, to_dict
from maml_cli.errors import FileError
from maml_cli.reading import kind_of, read_file
from maml_cli.runs import checkpoint
from maml_cli.runs.files import (
    exclusive_lock,
    fsync_file,
    remove_temporary_files,
    truncate_lines,
    write_atomic,
)
from maml_cli.runs.listing import CHECKSUMS, LAST, LAST_SCHEMA_VERSION, read_checksums
from maml_cli.runs.load import Checkpoint
from maml_cli.runs.metrics import METRICS
from maml_cli.runs.timing import TIMING

TENSORBOARD = "tensorboard"
"""The directory of the events of a run."""
RESULTS = ("eval.json", "report.html", "plots", "params.*")
"""Patterns of the names of results of a checkpoint, which further outer steps leave as they are."""


def write_config(run: Path, config: Config) -> None:
    """Write `config.yaml` of a run."""
    write_atomic(run / "config.yaml", dump_yaml(to_dict(config)).encode())


def checkpoint_file(run: Path, step: int) -> Path:
    """Path of the checkpoint after `step` outer steps."""
    return run / "checkpoints" / f"step-{step:08d}.pt"


def result_names(run: Path) -> list[str]:
    """The results of earlier checkpoints in `run`, by their names."""
    return [file.name for pattern in RESULTS for file in sorted(run.glob(pattern))]


def save_checkpoint(run: Path, step: int, contents: dict[str, Any]) -> Path:
    """Write a checkpoint, then its SHA-256, then last.json: a crash in between leaves a state that can be resumed."""
    fsync_file(run / METRICS)
    file, sha256 = replace_checkpoint(run, step, contents)
    _write_last(run, file, step, sha256)
    return file


def replace_checkpoint(run: Path, step: int, contents: dict[str, Any]) -> tuple[Path, str]:
    """Write a checkpoint, then its SHA-256, but not last.json; returns its path and SHA-256."""
    data = checkpoint.encode(contents)
    file = checkpoint_file(run, step)
    if file.exists():
        _write_checksums(run, {name: sha256 for name, sha256 in read_checksums(run).items() if name != file.name})
    write_atomic(file, data)
    _write_checksums(run, read_checksums(run) | {file.name: checkpoint.digest(data)})
    return file, checkpoint.digest(data)


def remove_checkpoint(file: Path) -> None:
    """Remove a checkpoint that last.json does not name, after its SHA-256."""
    remove_checkpoints(file.parent.parent, [file])


def remove_checkpoints(run: Path, files: Sequence[Path]) -> None:
    """Remove checkpoints of `run` that last.json does not name, after their SHA-256."""
    removed = {file.name for file in files}
    _write_checksums(run, {name: sha256 for name, sha256 in read_checksums(run).items() if name not in removed})
    for file in files:
        file.unlink(missing_ok=True)


def truncate_to(newest: Checkpoint | None, run: Path) -> None:
    """Return `run` to its state at the checkpoint `newest`, or to its start for None.

    Log lines of later outer steps and temporary files are removed; later checkpoints stay until they are replaced, and
    checkpoint 0, which is saved at the start only, is removed for None.
    """
    if newest is None:
        (run / LAST).unlink(missing_ok=True)
        checkpoint_file(run, 0).unlink(missing_ok=True)
    else:
        data = read_file(newest.file, limit=checkpoint.MAX_BYTES)
        _write_last(run, newest.file, newest.step, checkpoint.digest(data))
    for name in (METRICS, TIMING):
        truncate_lines(run / name, up_to_step=newest.step if newest else -1)
    for directory in (run, run / "checkpoints"):
        remove_temporary_files(directory)


def check_files(run: Path) -> None:
    """Raises FileError if a training cannot write its files in `run`: one is no regular file, or a directory a link.

    Links in the place of files are replaced, and their targets unchanged.
    """
    saved, events = run / "checkpoints", run / TENSORBOARD
    for folder in (saved, events, *events.glob("seed-*")):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise FileError(f"{folder}: not a directory of this run, but a link or a file; remove it")
    names = ("config.yaml", METRICS, TIMING, LAST)
    files = [*(run / name for name in names), saved / CHECKSUMS, *saved.glob("step-*.pt")]
    for file in files:
        mode = os.lstat(file).st_mode if os.path.lexists(file) else stat.S_IFREG
        if not stat.S_ISLNK(mode) and (kind := kind_of(mode)):
            raise FileError(f"{file}: {kind}, not a regular file; remove it")


def training_lock(run: Path) -> AbstractContextManager[None]:
    """A lock that allows one process to train in `run`; raises FileError if another holds it."""
    return exclusive_lock(run / ".lock", busy=f"{run}: another process is training this run")


def dump_yaml(data: dict[str, Any]) -> str:
    """Plain values as block YAML in the order given, with short lists on one line."""
    return plain_yaml(data, flow=None, width=100)


def _write_checksums(run: Path, checksums: dict[str, str]) -> None:
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(checksums.items()))
    write_atomic(run / "checkpoints" / CHECKSUMS, lines.encode())


def _write_last(run: Path, file: Path, step: int, sha256: str) -> None:
    last = {
        "schema_version": LAST_SCHEMA_VERSION,
        "checkpoint": f"checkpoints/{file.name}",
        "step": step,
        "sha256": sha256,
    }
    write_atomic(run / LAST, (json.dumps(last) + "\n").encode())
