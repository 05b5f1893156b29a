"""The plan of a training: a new run or one to resume, from which checkpoint, on which device and engine."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maml_cli.config import Config, load_config
from maml_cli.engines import choose_engine
from maml_cli.errors import ConfigError
from maml_cli.experiment import choose_device
from maml_cli.runs import OUTPUTS, Checkpoint, checkpoint_files, directory, open_checkpoint, read_config
from maml_cli.runtime import Choice


class TrainPlan(NamedTuple):
    """A training before it starts.

    config: the config of the run.
    name: the run directory's name in outputs/ where `out` is not given.
    device, engine: names and reasons of those chosen.
    out: the new run directory, if one was given.
    resumed_run: the run directory to resume; None for a new run.
    checkpoint: the checkpoint to resume; None for a new run, or one that stopped before its first checkpoint.
    """

    config: Config
    name: str
    device: Choice
    engine: Choice
    out: Path | None = None
    resumed_run: Path | None = None
    checkpoint: Checkpoint | None = None

    @property
    def run_directory(self) -> str:
        """The run directory that is resumed or would be created. Raises FileError if it is not empty."""
        if self.resumed_run is None and self.out is not None:
            directory.check_empty(self.out)
        return str(self.resumed_run or self.out or directory.free_directory(OUTPUTS, self.name))


def plan_training(
    source: str | None, overrides: Sequence[str], *, out: Path | None, resume: str | None, device: str | None
) -> TrainPlan:
    """Plan the training that the options of `maml train` ask for; writes nothing.

    source: a YAML file or preset, by default quickstart. overrides: `key=value`. out: the run directory.
    resume: a run or checkpoint, or `auto`: the newest unfinished run with this config, else a new one.
    device: replaces that of the config; a resumed run keeps its config and uses the device for this process alone.
    Raises ConfigError, FileError or CheckpointError.
    """
    if resume is not None and resume != "auto":
        if source is not None or overrides or out is not None:
            raise ConfigError(
                "--resume: a resumed run keeps its config and directory; leave out --config, --set and --out"
            )
        return _plan_resumed(Path(resume), device)
    device_override = [f"run.device={device}"] if device else []
    loaded = load_config(source or "quickstart", [*overrides, *device_override])
    checkpoint = _find_unfinished(loaded.config, out) if resume else None
    resumed_run = checkpoint.run if checkpoint else None
    return _plan(loaded.config, loaded.name, out=out, resumed_run=resumed_run, checkpoint=checkpoint)


def _plan(
    config: Config,
    name: str,
    *,
    out: Path | None = None,
    resumed_run: Path | None = None,
    checkpoint: Checkpoint | None = None,
    device: str | None = None,
) -> TrainPlan:
    chosen = choose_device(config, device)
    return TrainPlan(config, name, chosen, choose_engine(config, chosen.device), out, resumed_run, checkpoint)


def _plan_resumed(path: Path, device: str | None) -> TrainPlan:
    if path.is_dir() and not checkpoint_files(path) and (config := read_config(path)):
        # It stopped before its first checkpoint: it starts again.
        return _plan(config, path.name, resumed_run=path, device=device)
    checkpoint = open_checkpoint(path)
    run = checkpoint.run
    if run is None:
        raise ConfigError(f"{path}: not in a run directory; --resume takes a run, or a checkpoint inside one")
    written = run / "config.yaml"
    if written.exists() and read_config(run) != checkpoint.config:
        raise ConfigError(
            f"{written}: not the config of its checkpoints; restore it, delete it to have it written again, or start a "
            f"new run with --config"
        )
    return _plan(checkpoint.config, checkpoint.label, resumed_run=run, checkpoint=checkpoint, device=device)


def _find_unfinished(config: Config, out: Path | None) -> Checkpoint | None:
    """The run in `out`, or else the newest run with outer steps left to take, if it has exactly this config."""
    runs = [out] if out else [file.parent for file in OUTPUTS.glob("*/last.json")]
    for run in sorted(runs, key=_last_saved, reverse=True):
        if checkpoint_files(run) and read_config(run) == config:
            checkpoint = open_checkpoint(run)
            if out or checkpoint.step < config.outer.steps:
                return checkpoint
    return None


def _last_saved(run: Path) -> float:
    """Time of the newest checkpoint, in seconds since the epoch."""
    last = run / "last.json"
    return last.stat().st_mtime if last.exists() else 0.0
