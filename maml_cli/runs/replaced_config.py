"""Checkpoints of a run with another config inside, of the same values."""

from pathlib import Path

from maml_cli.config import Config, to_dict
from maml_cli.errors import CheckpointError, FileError
from maml_cli.runs import directory
from maml_cli.runs.listing import checkpoint_files
from maml_cli.runs.load import Checkpoint, open_checkpoint


def replace_config(run: Path, newest: Checkpoint, *, previous: Config, config: Config) -> None:
    """Write `config` in place of `previous` into the checkpoints of `run` up to `newest`, and remove later ones.

    `newest` is that of last.json, and is written last: a crash leaves a run with one of the two configs there. Damaged
    checkpoints, and those of other configs, stay as they are.
    """
    for file in checkpoint_files(run):
        if _step_of(file) > newest.step:
            directory.remove_checkpoint(file)
    for file in reversed(checkpoint_files(run)):
        try:
            older = open_checkpoint(file)
        except (CheckpointError, FileError):
            continue
        if older.step < newest.step and older.config == previous:
            directory.replace_checkpoint(run, older.step, _with_config(older, config))
    directory.save_checkpoint(run, newest.step, _with_config(newest, config))


def _with_config(checkpoint: Checkpoint, config: Config) -> dict[str, object]:
    return checkpoint.contents | {"config": to_dict(config)}


def _step_of(file: Path) -> int:
    return int(file.stem.removeprefix("step-"))
