"""A training from start to stop: a new run or an old one resumed, on the chosen device, safe from interruption."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from maml_cli import engines, quick, rundir
from maml_cli.config import Config
from maml_cli.describe import describe
from maml_cli.devices import Choice
from maml_cli.errors import CheckpointError, ConfigError, InterruptedRun
from maml_cli.experiment import Experiment, build
from maml_cli.files import read_lines
from maml_cli.loading import load_config
from maml_cli.outer import Advance, TrainState
from maml_cli.progress import progress, tell
from maml_cli.rundir import Checkpoint
from maml_cli.signals import Stop, catch_stop
from maml_cli.train import Trained, restore, start, train

OUTPUTS = Path("outputs")
Say = Callable[[str], None]


class Plan(NamedTuple):
    """What is to be trained: a config, where a new run goes or which one goes on, and from which checkpoint.

    `device` is asked for in place of the config's, which a run that goes on keeps.
    """

    config: Config
    name: str
    out: Path | None = None
    run: Path | None = None
    resumed: Checkpoint | None = None
    device: str | None = None

    @property
    def where(self) -> str:
        """The run directory that it goes on with, or would make. Raises FileError if that one is taken."""
        if self.run is None and self.out is not None:
            rundir.check_empty(self.out)
        return str(self.run or self.out or rundir.free_directory(OUTPUTS, self.name))


class Launched(NamedTuple):
    """A training that ended or was interrupted; `exit_code` is 0 or that of the signal."""

    run: Path
    trained: Trained
    config: Config
    device: str
    engine: str
    exit_code: int


def plan(
    source: str | None, overrides: Sequence[str], *, out: Path | None, resume: str | None, device: str | None
) -> Plan:
    """Make out what the options of `maml train` ask for; writes nothing.

    `resume` is a run or checkpoint, or `auto`: the newest unfinished run of the same config, or else a new one.
    """
    if resume is not None and resume != "auto":
        if source is not None or overrides or out is not None:
            raise ConfigError("--resume goes on with a run as it is: leave out --config, --set and --out")
        return _plan_resumed(Path(resume), device)
    on_device = [f"run.device={device}"] if device else []
    loaded = load_config(source or "quickstart", [*overrides, *on_device])
    found = _same_config(loaded.config, out) if resume else None
    return Plan(loaded.config, loaded.name, out, found.run if found else None, found)


def launch(plan: Plan, choice: Choice, engine: Choice, *, quiet: bool) -> Launched:
    """Train what is planned; a first Ctrl-C or SIGTERM saves and stops."""
    say: Say = (lambda text: None) if quiet else tell
    config, resumed = plan.config, plan.resumed
    _check_memory(config, choice)
    torch.set_num_threads(config.run.threads)
    quick.keep_freed_memory()
    quick.leave_dynamo_out()
    with catch_stop() as stop:
        experiment = build(config, choice.device)
        state = _restored(resumed, experiment) if resumed else start(config, experiment)
        name, advance = _made(engine, config, experiment, say)
        run = plan.run or rundir.create(plan.out, name=plan.name, config=config, parent=OUTPUTS)
        with rundir.only_trainer(run), _explained(stop, run):
            if plan.run:
                _reopen(run, config, resumed)
            say(f"{run}: {f'goes on from step {state.step:,}' if plan.run else 'a new run'}")
            for line in describe(config, choice, engine):
                say(f"  {line}")
            shown = progress(
                first_step=state.step,
                steps=config.outer.steps,
                tasks_per_step=config.outer.tasks_per_step * len(config.seeds),
                quiet=quiet,
            )
            with shown as on_step:
                trained = train(config, experiment, state, run, advance=advance, on_step=on_step, interrupted=stop)
    for seed, step in trained.diverged.items():
        tell(f"seed {seed} diverged at outer step {step:,} and stays as it was before; the others went on")
    rate = trained.steps_done / trained.seconds
    done = f"in {trained.seconds:.1f} s, {rate:,.0f} outer steps/s" if trained.steps_done else "nothing left to do"
    say(f"{run}: at step {trained.step:,} of {config.outer.steps:,}, {done}")
    if trained.interrupted:
        assert stop.received is not None
        # Said even when quiet: whoever stopped it needs to know.
        tell(f"stopped by {stop.received.name}; saved. Go on with: maml train --resume {run}")
    else:
        say(f"next: maml eval --checkpoint {run}")
    return Launched(run, trained, config, choice.name, name, stop.exit_code if trained.interrupted else 0)


def _made(engine: Choice, config: Config, experiment: Experiment, say: Say) -> tuple[str, Advance]:
    """The engine; and where the one that was chosen for the config does not compile, the one that need not."""
    try:
        return engine.name, engines.make(engine.name, config, experiment, say=say)
    except ConfigError as error:
        if config.run.engine != "auto":
            raise
        tell(f"{error}")
        return "eager", engines.make("eager", config, experiment)


def _restored(checkpoint: Checkpoint, experiment: Experiment) -> TrainState:
    try:
        return restore(checkpoint.config, experiment, checkpoint.contents)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.file}: {error}") from None


def _plan_resumed(path: Path, device: str | None) -> Plan:
    if path.is_dir() and not any(path.glob("checkpoints/step-*.pt")) and (config := rundir.config_of(path)):
        # It died before its first checkpoint: from the beginning, then.
        return Plan(config, path.name, run=path, device=device)
    found = rundir.open_checkpoint(path)
    if found.run is None:
        raise ConfigError(f"{path}: not in a run directory; --resume takes a run, or a checkpoint inside one")
    written = found.run / "config.yaml"
    if written.exists() and rundir.config_of(found.run) != found.config:
        raise ConfigError(
            f"{written}: not the config of its checkpoints, and a run goes on as it began; put it right, or delete it "
            f"to have it written again, or start a new run with --config"
        )
    return Plan(found.config, found.label, run=found.run, resumed=found, device=device)


def _same_config(config: Config, out: Path | None) -> Checkpoint | None:
    """The run in `out`, or else the newest one with steps left to do, if it has this very config."""
    runs = [out] if out else [file.parent for file in OUTPUTS.glob("*/last.json")]
    runs = [run for run in runs if any(run.glob("checkpoints/step-*.pt")) and rundir.config_of(run) == config]
    for run in sorted(runs, key=_last_saved, reverse=True):
        found = rundir.open_checkpoint(run)
        if out or found.step < config.outer.steps:
            return found
    return None


def _last_saved(run: Path) -> float:
    last = run / "last.json"
    return last.stat().st_mtime if last.exists() else 0.0


def _reopen(run: Path, config: Config, resumed: Checkpoint | None) -> None:
    """Bring the files of `run` to where training goes on, and say what is missing from them."""
    step = resumed.step if resumed else 0
    if resumed and resumed.note:
        tell(resumed.note)
    if not (run / "config.yaml").exists():
        rundir.write_config(run, resumed.config if resumed else config)
    (run / "checkpoints").mkdir(exist_ok=True)
    rundir.rewind(resumed, run)
    logged = sum("loss" in record for record in read_lines(run / "metrics.jsonl"))
    lost = step // config.run.log_every - logged
    if lost > 0:
        tell(f"{run / 'metrics.jsonl'}: {lost} lines from before step {step:,} are missing, and stay so")


@contextlib.contextmanager
def _explained(stop: Stop, run: Path) -> Iterator[None]:
    """A signal that leaves no time to save is reported as what it is, with what there is to go on from."""
    try:
        yield
    except KeyboardInterrupt:
        message = f"stopped before it could save; go on from its newest checkpoint with: maml train --resume {run}"
        raise InterruptedRun(message, stop.exit_code or 130) from None


def _check_memory(config: Config, choice: Choice) -> None:
    """Raises ConfigError if one layer's values alone are more than the machine's memory: it would be killed."""
    tasks, points = config.outer.tasks_per_step, config.tasks.num_support + config.tasks.num_query
    needed = tasks * points * max([1, *config.model.hidden]) * (8 if config.run.dtype == "float64" else 4)
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not known on this system
        return
    if choice.name == "cpu" and needed > memory:
        raise ConfigError(
            f"one layer of {tasks:,} tasks with {points:,} points needs {needed / 2**30:,.0f} GiB, this machine has "
            f"{memory / 2**30:,.0f}; lower outer.tasks_per_step, tasks.num_support or tasks.num_query"
        )
