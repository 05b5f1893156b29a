"""Reading run directories: checkpoints verified before use, and the newest good one named where one is damaged."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from maml_cli.config import Config, load_config
from maml_cli.errors import CheckpointError, ConfigError, FileError
from maml_cli.runs import checkpoint
from maml_cli.runs.contents import validate
from maml_cli.runs.files import OUTPUTS

CHECKSUMS = "SHA256SUMS"


class Checkpoint(NamedTuple):
    """A verified checkpoint.

    file: path of the .pt file.
    run: the run directory that it is in; None for a file outside of one.
    config: the config that it was trained with.
    contents: tensors and plain values by name, as `training.snapshot` describes them.
    warning: a message about files that are missing or damaged around it; empty if there are none.
    """

    file: Path
    run: Path | None
    config: Config
    contents: dict[str, Any]
    warning: str = ""

    @property
    def step(self) -> int:
        """Outer steps taken."""
        return int(self.contents["step"])

    @property
    def label(self) -> str:
        """The run directory as text, or the file outside of one."""
        return str(self.run or self.file)


def open_checkpoint(path: Path) -> Checkpoint:
    """Read and verify the checkpoint file `path`, or the newest checkpoint of the run directory `path`.

    Raises FileError if there is none, CheckpointError if it is damaged: the message names the newest good one.
    """
    if not path.exists():
        raise FileError(f"{path}: no such run or checkpoint{_did_you_mean(path)}")
    file, warning = _newest_checkpoint(path) if path.is_dir() else (path, "")
    run = _run_of(file)
    try:
        return _read(file, run)._replace(warning=warning)
    except CheckpointError as error:
        files = checkpoint_files(run) if run else []
        good = next((older for older in files if _is_good(older, run)), None)
        advice = f"the newest good checkpoint is {good}" if good else "there is no other checkpoint in its directory"
        raise CheckpointError(f"{file}: {error}; {advice}") from None


def read_config(run: Path) -> Config | None:
    """The config of a run, or None if it is missing or invalid."""
    try:
        return load_config(str(run / "config.yaml")).config
    except (ConfigError, FileError):
        return None


def checkpoint_files(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted((f for f in run.glob("checkpoints/step-*.pt") if re.fullmatch(r"step-\d+", f.stem)), reverse=True)


def read_checksums(run: Path) -> dict[str, str]:
    """SHA-256 of each checkpoint by file name, from SHA256SUMS, or that of the newest from last.json without it."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = (run / "checkpoints" / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        last = json.loads((run / "last.json").read_text(encoding="utf-8"))
        return {Path(last["checkpoint"]).name: str(last["sha256"])}
    return {}


def _read(file: Path, run: Path | None) -> Checkpoint:
    try:
        if (size := file.stat().st_size) > checkpoint.MAX_BYTES:
            raise CheckpointError(f"not a checkpoint: {size:,} bytes, more than {checkpoint.MAX_BYTES:,}")
        data = file.read_bytes()
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {error.strerror}") from None
    contents = checkpoint.decode(data, sha256=read_checksums(run).get(file.name) if run else None)
    config = validate(contents)
    named = re.fullmatch(r"step-(\d+)", file.stem) if run else None
    if named and int(named[1]) != contents["step"]:
        raise CheckpointError(f"its name is that of another outer step: it was saved at {contents['step']:,}")
    return Checkpoint(file, run, config, contents)


def _is_good(file: Path, run: Path | None) -> bool:
    try:
        _read(file, run)
    except (CheckpointError, FileError):
        return False
    return True


def _newest_checkpoint(directory: Path) -> tuple[Path, str]:
    """The file that last.json names, or else that of the last outer step, and a warning where the two differ."""
    run = directory.parent if directory.name == "checkpoints" else directory
    files = checkpoint_files(run)
    if not files:
        raise FileError(f"{directory}: not a run directory: it has no checkpoints/step-*.pt")
    try:
        named = run / json.loads((run / "last.json").read_text(encoding="utf-8"))["checkpoint"]
    except FileNotFoundError:
        return files[0], ""
    except (OSError, ValueError, KeyError, TypeError):
        return files[0], f"{run / 'last.json'}: damaged; using the newest checkpoint, {files[0].name}"
    if named.exists():
        return named, ""
    return files[0], f"{named}: missing; using the newest checkpoint, {files[0].name}"


def _run_of(file: Path) -> Path | None:
    return file.parent.parent if file.absolute().parent.name == "checkpoints" else None


def _did_you_mean(path: Path) -> str:
    inside = OUTPUTS / path
    return f"; did you mean {inside}?" if inside.exists() else ""
