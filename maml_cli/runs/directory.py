"""Writing run directories: a crash at any moment leaves a state from which the run can be resumed.

config.yaml                      resolved, enough to repeat the run
metrics.jsonl                    losses and validation errors, the same bytes whenever the run is repeated
timing.jsonl                     times and rates
checkpoints/step-00001000.pt     and their SHA256SUMS, as `sha256sum -c` reads it
last.json                        names the newest checkpoint and its SHA-256
plots/, eval.json                results of `maml plot` and `maml eval`
"""

import contextlib
import itertools
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml

from maml_cli.config import Config, to_dict
from maml_cli.errors import FileError
from maml_cli.runs import checkpoint
from maml_cli.runs.files import (
    OUTPUTS,
    exclusive_lock,
    fsync_file,
    remove_temporary_files,
    truncate_lines,
    write_atomic,
)
from maml_cli.runs.load import CHECKSUMS, Checkpoint, read_checksums
from maml_cli.runs.metrics import METRICS, TIMING

LAST_SCHEMA_VERSION = 1


def create_run(path: Path | None, *, name: str, config: Config, parent: Path = OUTPUTS) -> Path:
    """Create a run directory at `path`, or the first free one of `parent`/`name`, `name`-2, ...

    Raises FileError if `path` is not empty, or the directory cannot be created.
    """
    try:
        if path is not None:
            check_empty(path)
            path.mkdir(parents=True, exist_ok=True)
            run = path
        else:
            parent.mkdir(parents=True, exist_ok=True)
            run = _make_free_directory(parent, name)
        (run / "checkpoints").mkdir()
        write_config(run, config)
    except OSError as error:
        run = path or parent / name
        advice = "give another directory with --out"
        raise FileError(f"{run}: cannot be created: {error.strerror} ({error.filename}); {advice}") from None
    return run


def free_directory(parent: Path, name: str) -> Path:
    """The first of `name`, `name`-2, ... that does not exist in `parent`."""
    candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(parent / candidate for candidate in candidates if not (parent / candidate).exists())


def check_empty(path: Path) -> None:
    """Raises FileError if `path` is a file, or a directory that is not empty."""
    if path.is_file():
        raise FileError(f"{path}: a file; --out takes a directory")
    if path.is_dir() and any(path.iterdir()):
        raise FileError(f"{path}: not empty; give a new directory, or resume the run in it with --resume {path}")


def write_config(run: Path, config: Config) -> None:
    """Write `config.yaml` of a run."""
    write_atomic(run / "config.yaml", dump_yaml(to_dict(config)).encode())


def checkpoint_file(run: Path, step: int) -> Path:
    """Path of the checkpoint after `step` outer steps."""
    return run / "checkpoints" / f"step-{step:08d}.pt"


def save_checkpoint(run: Path, step: int, contents: dict[str, Any]) -> Path:
    """Write a checkpoint, then its SHA-256, then last.json: a crash in between leaves a state that can be resumed."""
    data = checkpoint.encode(contents)
    file = checkpoint_file(run, step)
    fsync_file(run / METRICS)
    if file.exists():
        _write_checksums(run, {name: sha256 for name, sha256 in read_checksums(run).items() if name != file.name})
    write_atomic(file, data)
    _write_checksums(run, read_checksums(run) | {file.name: checkpoint.digest(data)})
    _write_last(run, file, step, checkpoint.digest(data))
    return file


def truncate_to(newest: Checkpoint | None, run: Path) -> None:
    """Return `run` to its state at the checkpoint `newest`, or to its start for None.

    Log lines of later outer steps and temporary files are removed; later checkpoints stay until they are replaced.
    """
    if newest is not None:
        _write_last(run, newest.file, newest.step, checkpoint.digest(newest.file.read_bytes()))
    for name in (METRICS, TIMING):
        truncate_lines(run / name, up_to_step=newest.step if newest else -1)
    for directory in (run, run / "checkpoints"):
        remove_temporary_files(directory)


def training_lock(run: Path) -> AbstractContextManager[None]:
    """A lock that allows one process to train in `run`; raises FileError if another holds it."""
    return exclusive_lock(run / ".lock", busy=f"{run}: another process is training this run")


def dump_yaml(data: dict[str, Any]) -> str:
    """Plain values as block YAML in the order given, with short lists on one line."""
    return yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=100)


def _make_free_directory(parent: Path, name: str) -> Path:
    while True:  # another process may create the same directory first
        run = free_directory(parent, name)
        with contextlib.suppress(FileExistsError):
            run.mkdir()
            return run


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
    write_atomic(run / "last.json", (json.dumps(last) + "\n").encode())
