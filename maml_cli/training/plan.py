"""The plan of a training: a new run or one to resume, from which checkpoint, on which device and engine."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maml_cli.config import Config, load_config, locate_table
from maml_cli.engines import choose_engine
from maml_cli.errors import ConfigError, FileError
from maml_cli.experiment import build_experiment, choose_device, measure_data
from maml_cli.extras import require
from maml_cli.runs import (
    OUTPUTS,
    Checkpoint,
    check_new_run,
    checkpoint_files,
    directory,
    find_run,
    newest_good_checkpoint,
    open_checkpoint,
    read_config,
    read_lines,
)
from maml_cli.runtime import Choice
from maml_cli.training.extension import Extension, plan_extension
from maml_cli.training.memory import check_training_memory
from maml_cli.training.processes import ONE_PROCESS, Processes
from maml_cli.training.sharing import shared_settings
from maml_cli.training.summary import training_summary
from maml_cli.training.warm_start import WarmStart, read_warm_start


class TrainPlan(NamedTuple):
    """A training before it starts.

    config: the config of the run.
    name: the run directory's name in outputs/ where `out` is not given.
    device, engine: names and reasons of those chosen.
    out: the new run directory, if one was given.
    resumed_run: the run directory to resume; None for a new run.
    checkpoint: the checkpoint to resume; None for a new run, or one without a good checkpoint, which starts again.
    warnings: lines about files that are missing or damaged.
    warm_start: the initial values from another run; None for random ones, and where a checkpoint is resumed.
    extension: the other number of outer steps that the resumed run gets; None if it keeps its own.
    """

    config: Config
    name: str
    device: Choice
    engine: Choice
    out: Path | None = None
    resumed_run: Path | None = None
    checkpoint: Checkpoint | None = None
    warnings: Sequence[str] = ()
    warm_start: WarmStart | None = None
    extension: Extension | None = None

    def summary(self, engine: Choice | None = None) -> list[str]:
        """The training in words; `engine` is the one that was made, where it is not the planned one."""
        start = self.warm_start.summary if self.warm_start else ""
        changed = [f"extended {self.extension.summary}"] if self.extension else []
        config = self.located(self.config)
        return [*changed, *training_summary(config, self.device, engine or self.engine, start=start)]

    def located(self, config: Config) -> Config:
        """`config` with the place of its table of curves, to compute with; the run that is resumed keeps its own."""
        return locate_table(config, self.resumed_run) if self.resumed_run else config

    @property
    def run_directory(self) -> str:
        """The run directory that is resumed or would be created. Raises FileError if that would fail."""
        if self.resumed_run is not None:
            directory.check_files(self.resumed_run)
        return str(self.resumed_run or check_new_run(self.out, name=self.name))


def plan_training(
    source: str | Config | None,
    overrides: Sequence[str],
    *,
    out: Path | None,
    resume: str | None,
    device: str | None,
    init: str | None = None,
    processes: Processes = ONE_PROCESS,
) -> TrainPlan:
    """Plan the training that the options of `maml train` ask for; writes nothing, and refuses what needs more memory
    than is available.

    source: a YAML file, preset or config, by default quickstart. overrides: `key=value`; a resumed run takes another
        number of outer steps alone. out: the run directory.
    resume: a run or checkpoint, `latest`, or `auto`: the newest unfinished run with this config, else a new one.
    init: a run, checkpoint, published run or `latest` whose parameters a new run starts from, whatever the config says.
    device: replaces that of the config; a resumed run keeps its config and uses the device for this process alone.
    processes: those that share the training; the leader plans for all. If torchrun has started them again, they resume
    the run that they began, whatever the options.
    Raises ConfigError, FileError or CheckpointError.
    """

    def plan() -> TrainPlan:
        if processes.started_run is not None:
            planned = _plan_resumed(Path(processes.started_run), device)
        else:
            planned = _plan_from_options(source, overrides, out, resume, device, init, shared=processes.are_joined)
        config, engine = planned.config, planned.engine.name
        if planned.device.name == "cpu":
            template = build_experiment(config).template
            check_training_memory(config, engine, template, num_processes=processes.size_here)
        return planned

    return processes.lead(plan)


def require_packages(config: Config) -> None:
    """Raises ConfigError, with what to install, if a package that a training of `config` needs is missing."""
    if config.run.tensorboard:
        require("tensorboard", "TensorBoard", extra="tensorboard", user="run.tensorboard")


def _plan_from_options(
    source: str | Config | None,
    overrides: Sequence[str],
    out: Path | None,
    resume: str | None,
    device: str | None,
    init: str | None,
    *,
    shared: bool,
) -> TrainPlan:
    if resume == "":
        raise ConfigError("--resume: an empty path; give a run, a checkpoint or auto")
    if resume is not None and resume != "auto":
        if source is not None or out is not None or init is not None:
            raise ConfigError(
                "--resume: a resumed run keeps its config and directory; leave out --config, --out and --init"
            )
        return _extended(_plan_resumed(find_run(resume), device), overrides)
    if init == "":
        raise ConfigError("--init: an empty path; give a run, a checkpoint or the name of a published run")
    settings = [*overrides, *([f"run.device={device}"] if device else [])]
    if init is not None:
        settings += [f"run.init_from={json.dumps(str(find_run(init)))}", "run.init_sha256=null"]
    loaded = load_config(source or "quickstart", settings)
    if shared:
        loaded = load_config(source or "quickstart", [*settings, *shared_settings(loaded.config)])
    config = measure_data(loaded.config)
    warm_start = read_warm_start(config)
    config = warm_start.config if warm_start else config
    run, checkpoint, warnings = _find_unfinished(config, out) if resume else (None, None, ())
    plan = _plan(config, loaded.name, out=out, resumed_run=run, checkpoint=checkpoint)
    return plan._replace(warnings=warnings, warm_start=None if checkpoint else warm_start)


def _plan(
    config: Config,
    name: str,
    *,
    out: Path | None = None,
    resumed_run: Path | None = None,
    checkpoint: Checkpoint | None = None,
    device: str | None = None,
) -> TrainPlan:
    require_packages(config)
    chosen = choose_device(config, device)
    engine = choose_engine(config, chosen.device)
    warnings = checkpoint.warnings if checkpoint else ()
    return TrainPlan(config, name, chosen, engine, out, resumed_run, checkpoint, warnings)


def _plan_resumed(path: Path, device: str | None) -> TrainPlan:
    if path.is_dir() and not checkpoint_files(path) and (config := read_config(path)):
        # It stopped before its first checkpoint: it starts again.
        return _plan(config, path.name, resumed_run=path, device=device)._replace(warm_start=read_warm_start(config))
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


def _extended(plan: TrainPlan, overrides: Sequence[str]) -> TrainPlan:
    """`plan` of a resumed run with the outer steps that `overrides` give it."""
    if not overrides or plan.resumed_run is None:
        return plan
    extension = plan_extension(plan.resumed_run, plan.config, plan.checkpoint, overrides, plan.device.device)
    if extension is None:
        return plan
    return plan._replace(config=extension.config, checkpoint=extension.checkpoint, extension=extension)


def _find_unfinished(config: Config, out: Path | None) -> tuple[Path | None, Checkpoint | None, Sequence[str]]:
    """The run in `out`, or else the newest run with outer steps left to take, if it has exactly this config.

    With its newest good checkpoint, None for its start, and warnings about checkpoints that are skipped.
    """
    runs = [out] if out else [file.parent for file in OUTPUTS.glob("*/config.yaml")]
    for run in sorted(runs, key=_last_saved, reverse=True):
        if read_config(run) != config:
            continue
        if not checkpoint_files(run):
            if _never_saved(run):
                return run, None, ()
            continue
        checkpoint, warnings = newest_good_checkpoint(run, config)
        if out or checkpoint is None or checkpoint.step < config.outer.steps:
            return run, checkpoint, warnings
    return None, None, ()


def _never_saved(run: Path) -> bool:
    """Whether a run stopped before its first checkpoint; one whose checkpoints were removed has log lines after it."""
    if os.path.lexists(run / "last.json"):
        return False
    try:
        return all(record["step"] == 0 for record in read_lines(run / "metrics.jsonl"))
    except FileError:
        return False


def _last_saved(run: Path) -> float:
    """Time of the newest checkpoint, or else of the config, in seconds since the epoch."""
    files = [file for file in (run / "last.json", run / "config.yaml") if file.exists()]
    return files[0].stat().st_mtime if files else 0.0
