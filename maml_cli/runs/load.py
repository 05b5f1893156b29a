"""Reading run directories: checkpoints verified before use, and the newest good one named where one is damaged."""

import contextlib
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from maml_cli.config import Config, load_config_file
from maml_cli.errors import CheckpointError, ConfigError, FileError, NewerVersionError
from maml_cli.reading import read_file
from maml_cli.runs import checkpoint
from maml_cli.runs.contents import validate
from maml_cli.runs.files import OUTPUTS, parse_json

CHECKSUMS, LAST = "SHA256SUMS", "last.json"
CHECKSUMS_BYTES, LAST_BYTES = 16_000_000, 65_536
"""Largest files that are read."""


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


def newest_good_checkpoint(run: Path, config: Config) -> tuple[Checkpoint | None, str]:
    """The newest checkpoint of `run` that is good and has `config`, and a warning with those that are skipped.

    None if there is none. A newer checkpoint than that of last.json belongs to steps whose log lines are removed, and
    is not taken. Raises NewerVersionError for a checkpoint of a newer version of maml.
    """
    newest, warning = _newest_checkpoint(run)
    skipped = []
    for file in [newest, *(file for file in checkpoint_files(run) if file.name < newest.name)]:
        try:
            checkpoint = _read(file, run)
            if checkpoint.config != config:
                raise CheckpointError("of another config than config.yaml")
        except NewerVersionError as error:
            raise NewerVersionError(f"{file}: {error}") from None
        except CheckpointError as error:
            skipped.append(f"{file}: {error}; skipped")
        except FileError as error:
            skipped.append(f"{error}; skipped")
        else:
            lines = [*([warning] if warning else []), *_shortened(skipped)]
            return checkpoint._replace(warning="\n".join(lines)), ""
    return None, "\n".join([*_shortened(skipped), f"{run}: no good checkpoint; the run starts again"])


def read_config(run: Path) -> Config | None:
    """The config of a run, or None if it is missing or invalid."""
    try:
        return load_config_file(run / "config.yaml")
    except (ConfigError, FileError):
        return None


def checkpoint_files(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    return sorted((f for f in run.glob("checkpoints/step-*.pt") if re.fullmatch(r"step-\d+", f.stem)), reverse=True)


def read_checksums(run: Path) -> dict[str, str]:
    """SHA-256 of each checkpoint by file name, from SHA256SUMS, or that of the newest from last.json without it."""
    with contextlib.suppress(FileError, UnicodeDecodeError):
        text = read_file(run / "checkpoints" / CHECKSUMS, limit=CHECKSUMS_BYTES).decode("utf-8")
        lines = (line.partition("  ") for line in text.split("\n"))
        return {name: digest for digest, separator, name in lines if separator and name == Path(name).name}
    with contextlib.suppress(FileError, ValueError):
        last = _read_last(run)
        return {Path(last["checkpoint"]).name: last["sha256"]}
    return {}


def _read_last(run: Path) -> dict[str, str]:
    """`checkpoint` and `sha256` of last.json; raises ValueError unless it names a file in the run's checkpoints/."""
    last = parse_json(read_file(run / LAST, limit=LAST_BYTES))
    values = {key: last.get(key) if isinstance(last, dict) else None for key in ("checkpoint", "sha256")}
    folder, _, name = str(values["checkpoint"]).partition("/")
    if not all(isinstance(value, str) for value in values.values()) or folder != "checkpoints":
        raise ValueError("without the newest checkpoint")
    if name in ("", ".", "..") or Path(name).name != name or not name.isprintable():
        raise ValueError("it names a file outside the run")
    return {key: str(value) for key, value in values.items()}


def _read(file: Path, run: Path | None) -> Checkpoint:
    data = read_file(file, limit=checkpoint.MAX_BYTES)
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
    if not os.path.lexists(run / LAST):
        return files[0], ""
    try:
        named = run / _read_last(run)["checkpoint"]
    except (FileError, ValueError):
        return files[0], f"{run / LAST}: damaged; using the newest checkpoint, {files[0].name}"
    if named.exists():
        return named, ""
    return files[0], f"{named}: missing; using the newest checkpoint, {files[0].name}"


def _shortened(lines: list[str]) -> list[str]:
    return lines if len(lines) <= 4 else [*lines[:3], f"... and {len(lines) - 3} more"]


def _run_of(file: Path) -> Path | None:
    return file.parent.parent if file.absolute().parent.name == "checkpoints" else None


def _did_you_mean(path: Path) -> str:
    inside = OUTPUTS / path
    return f"; did you mean {inside}?" if inside.exists() else ""
