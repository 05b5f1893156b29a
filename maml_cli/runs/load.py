"""Reading run directories: checkpoints verified before use, and the newest good one named where one is damaged."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maml_cli.config import Config
from maml_cli.errors import CheckpointError, FileError, NewerVersionError
from maml_cli.reading import read_file
from maml_cli.runs import checkpoint
from maml_cli.runs.contents import validate
from maml_cli.runs.listing import checkpoint_files, newest_checkpoint, read_checksums, step_of
from maml_cli.runs.published import published_checkpoint
from maml_cli.runs.suggestions import did_you_mean
from maml_cli.runs.timing import read_timing


class Checkpoint(NamedTuple):
    """A verified checkpoint.

    file: path of the .pt file.
    run: the run directory that it is in; None for a file outside of one.
    config: the config that it was trained with.
    contents: tensors and plain values by name, as `training.snapshot` describes them.
    warnings: lines about files around it that are missing or damaged.
    name: of a published run, without directories; empty for any other.
    """

    file: Path
    run: Path | None
    config: Config
    contents: dict[str, Any]
    warnings: Sequence[str] = ()
    name: str = ""

    @property
    def step(self) -> int:
        """Outer steps taken."""
        return int(self.contents["step"])

    @property
    def label(self) -> str:
        """The run directory as text, or the file outside of one, or the name of a published run."""
        return self.name or str(self.run or self.file)


def open_checkpoint(path: Path) -> Checkpoint:
    """Read and verify the checkpoint file `path`, the newest checkpoint of the run directory `path`, or that of the
    published run of this name.

    Raises FileError if there is none, CheckpointError if it is damaged: the message names the newest good one.
    """
    if not path.exists():
        if published := published_checkpoint(path):
            return _read(published, None, {})._replace(name=path.name)
        raise FileError(f"{path}: no such run or checkpoint{did_you_mean(path)}")
    file, warnings = newest_checkpoint(path) if path.is_dir() else (path, [])
    run = _run_of(file)
    checksums = read_checksums(run) if run else {}
    try:
        opened = _read(file, run, checksums)
        return opened._replace(warnings=[*warnings, *(_divergence(opened) if path.is_dir() else [])])
    except CheckpointError as error:
        good = newest_good_file(run, checkpoint_files(run)) if run else None
        advice = f"the newest good checkpoint is {good}" if good else "there is no other checkpoint in its directory"
        raise CheckpointError(f"{file}: {error}; {advice}") from None


def _divergence(opened: Checkpoint) -> list[str]:
    """A line that the run of a checkpoint diverged after it; none if it did not, or is not recorded to have."""
    try:
        step = read_timing(opened.run).diverged_step if opened.run else None
    except FileError:
        return []
    if step is None:
        return []
    return [f"{opened.run}: diverged at outer step {step:,}; this is its last good checkpoint, of step {opened.step:,}"]


def newest_good_checkpoint(run: Path, config: Config) -> tuple[Checkpoint | None, Sequence[str]]:
    """The newest checkpoint of `run` that is good and has `config`, and warnings about those that are skipped.

    None if there is none. A newer checkpoint than that of last.json belongs to steps whose log lines are removed, and
    is not taken, unless last.json names a renamed one, whose outer step is not known. Raises NewerVersionError for a
    checkpoint of a newer version of maml.
    """
    newest, warnings = newest_checkpoint(run)
    checksums, last_step, skipped = read_checksums(run), step_of(newest), list[str]()
    older = [file for file in checkpoint_files(run) if last_step is None or (step_of(file) or 0) < last_step]
    for file in [newest, *older]:
        try:
            checkpoint = _read(file, run, checksums)
            if checkpoint.config != config:
                raise CheckpointError("of another config than config.yaml")
        except NewerVersionError as error:
            raise NewerVersionError(f"{file}: {error}") from None
        except CheckpointError as error:
            skipped.append(f"{file}: {error}; skipped")
        except FileError as error:
            skipped.append(f"{error}; skipped")
        else:
            warnings += _shortened(skipped)
            return checkpoint._replace(warnings=warnings), warnings
    return None, [*warnings, *_shortened(skipped), f"{run}: no good checkpoint; the run starts again"]


def newest_good_file(run: Path, files: Sequence[Path]) -> Path | None:
    """The first of `files`, checkpoints of `run` with the newest first, that is good; None if none is."""
    checksums = read_checksums(run)
    return next((file for file in files if _is_good(file, run, checksums)), None)


def _read(file: Path, run: Path | None, checksums: Mapping[str, str]) -> Checkpoint:
    """The checkpoint in `file`, verified by `checksums` of its run: SHA-256 by file name."""
    data = read_file(file, limit=checkpoint.MAX_BYTES)
    contents = checkpoint.decode(data, sha256=checksums.get(file.name))
    config = validate(contents)
    if run and step_of(file) not in (None, contents["step"]):
        raise CheckpointError(f"its name is that of another outer step: it was saved at {contents['step']:,}")
    return Checkpoint(file, run, config, contents)


def _is_good(file: Path, run: Path | None, checksums: Mapping[str, str]) -> bool:
    try:
        _read(file, run, checksums)
    except (CheckpointError, FileError):
        return False
    return True


def _shortened(lines: list[str]) -> list[str]:
    return lines if len(lines) <= 4 else [*lines[:3], f"... and {len(lines) - 3} more"]


def _run_of(file: Path) -> Path | None:
    return file.parent.parent if file.absolute().parent.name == "checkpoints" else None
