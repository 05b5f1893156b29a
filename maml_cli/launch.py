"""A training from start to stop: a new run or an old one resumed, on the chosen device, safe from interruption."""

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch

from maml_cli import rundir
from maml_cli.config import Config
from maml_cli.devices import Choice
from maml_cli.errors import CheckpointError, ConfigError
from maml_cli.experiment import Experiment, build
from maml_cli.loading import load_config, override
from maml_cli.outer import TrainState
from maml_cli.progress import progress
from maml_cli.rundir import Checkpoint
from maml_cli.signals import catch_stop
from maml_cli.train import Trained, restore, start, train

ENGINE = "eager"
Say = Callable[[str], None]


class Plan(NamedTuple):
    """What is to be trained: a config, where its run goes, and the checkpoint it continues from, if any."""

    config: Config
    name: str
    out: Path | None
    resumed: Checkpoint | None

    @property
    def where(self) -> str:
        """The run directory that it goes on with, or would make; NAME-2, ... if that one is taken."""
        if self.resumed:
            return f"{self.resumed.label}, from step {self.resumed.step:,}"
        return str(self.out or Path("outputs") / self.name)


class Launched(NamedTuple):
    """A training that ended or was interrupted; `exit_code` is 0 or that of the signal."""

    run: Path
    trained: Trained
    config: Config
    device: str
    exit_code: int


def plan(
    source: str | None, overrides: Sequence[str], *, out: Path | None, resume: str | None, device: str | None
) -> Plan:
    """Make out what the options of `maml train` ask for; writes nothing.

    `resume` is a run or checkpoint, or `auto`: the newest unfinished run of the same config, or else a new one.
    """
    on_device = [f"run.device={device}"] if device else []
    if resume is not None and resume != "auto":
        if source is not None or overrides or out is not None:
            raise ConfigError("--resume goes on with a run as it is: leave out --config, --set and --out")
        found = _resumable(Path(resume))
        return Plan(override(found.config, on_device, label="--device"), found.label, None, found)
    loaded = load_config(source or "quickstart", [*overrides, *on_device])
    unfinished = _unfinished(loaded.config, out or Path("outputs"), out is not None) if resume else None
    return Plan(loaded.config, loaded.name, out, unfinished)


def describe(plan: Plan, choice: Choice) -> list[str]:
    """What will be trained and how, in a few lines."""
    config = plan.config
    tasks, inner, alpha = config.tasks, config.inner, config.inner.alpha
    sizes = [1, *config.model.hidden, 1]
    count = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))
    kind = f"learned from {alpha.init:g} per {alpha.per}" if alpha.learned else f"fixed at {alpha.init:g}"
    order = (
        "second order: the meta-gradient goes through the inner steps"
        if inner.order == "second"
        else "first order (FOMAML): the inner gradients count as constants"
    )
    if inner.first_order_until:
        order = f"first order for {inner.first_order_until:,} outer steps, then {order}"
    steps = f"{inner.steps} inner step{'s' if inner.steps > 1 else ''}"
    threads = f"{config.run.threads} thread{'s' if config.run.threads > 1 else ''}"
    return [
        f"tasks    {config.outer.tasks_per_step} in each of {config.outer.steps:,} outer steps, "
        f"{tasks.num_support} support and {tasks.num_query} query points each",
        f"network  {'-'.join(map(str, sizes))} {config.model.activation}, {count:,} parameters, seed {config.run.seed}",
        f"inner    {steps} on {inner.adapt}, {inner.loss} loss, alpha {kind}{', per step' if alpha.per_step else ''}",
        f"order    {order}",
        f"device   {choice.device.type} ({choice.reason}), {threads}, engine {ENGINE}",
    ]


def launch(plan: Plan, choice: Choice, *, quiet: bool) -> Launched:
    """Train what is planned; a first Ctrl-C or SIGTERM saves and stops."""
    say: Say = (lambda text: None) if quiet else (lambda text: print(text, file=sys.stderr, flush=True))
    config, resumed = plan.config, plan.resumed
    torch.set_num_threads(config.run.threads)
    with catch_stop() as stop:
        experiment = build(config, choice.device)
        if resumed and resumed.run:
            run, state = resumed.run, _restored(resumed, experiment)
        else:
            run, state = rundir.create(plan.out, name=plan.name, config=config), start(config, experiment)
        with rundir.only_trainer(run):
            if resumed:
                rundir.rewind(resumed, run)
            say(f"{run}: {f'goes on from step {state.step:,}' if resumed else 'a new run'}")
            for line in describe(plan, choice):
                say(f"  {line}")
            shown = progress(
                first_step=state.step,
                steps=config.outer.steps,
                tasks_per_step=config.outer.tasks_per_step,
                quiet=quiet,
            )
            with shown as on_step:
                trained = train(config, experiment, state, run, on_step=on_step, interrupted=stop)
    rate = trained.steps_done / trained.seconds
    done = f"in {trained.seconds:.1f} s, {rate:,.0f} outer steps/s" if trained.steps_done else "nothing left to do"
    say(f"{run}: at step {trained.step:,} of {config.outer.steps:,}, {done}")
    if trained.interrupted:
        assert stop.received is not None
        # Said even when quiet: whoever stopped it needs to know.
        print(f"stopped by {stop.received.name}; saved. Go on with: maml train --resume {run}", file=sys.stderr)
    return Launched(run, trained, config, choice.device.type, stop.exit_code if trained.interrupted else 0)


def _restored(checkpoint: Checkpoint, experiment: Experiment) -> TrainState:
    try:
        return restore(checkpoint.config, experiment, checkpoint.contents)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.file}: {error}") from None


def _resumable(path: Path) -> Checkpoint:
    found = rundir.open_checkpoint(path)
    if found.run is None:
        raise ConfigError(f"{path}: not in a run directory; --resume takes a run, or a checkpoint inside one")
    return found


def _unfinished(config: Config, where: Path, is_run: bool) -> Checkpoint | None:
    """The newest run at `where`, or in it, with this very config and steps left to do."""
    runs = [where] if is_run else [file.parent for file in where.glob("*/last.json")]
    runs = [run for run in runs if (run / "last.json").exists() and rundir.config_of(run) == config]
    for run in sorted(runs, key=lambda run: (run / "last.json").stat().st_mtime, reverse=True):
        found = rundir.open_checkpoint(run)
        if found.step < config.outer.steps:
            return found
    return None
