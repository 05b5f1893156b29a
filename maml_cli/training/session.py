"""A training from start to stop: a new run or an old one resumed, on the chosen device, safe from interruption."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from maml_cli import runtime
from maml_cli.config import Config, load_config
from maml_cli.engines import Engine, TrainState, registry
from maml_cli.errors import CheckpointError, ConfigError, InterruptedRun
from maml_cli.experiment import Experiment, build_experiment
from maml_cli.runs import Checkpoint, directory, read_lines
from maml_cli.runtime import Choice
from maml_cli.training.loop import TrainResult, init_state, restore_state, train
from maml_cli.training.progress import print_message, progress
from maml_cli.training.signals import Stop, catch_stop
from maml_cli.training.summary import training_summary

OUTPUTS = Path("outputs")
Notify = Callable[[str], None]


class TrainPlan(NamedTuple):
    """What is to be trained: a config, where a new run goes or which one goes on, and from which checkpoint.

    `device` is asked for in place of the config's, which a run that goes on keeps.
    """

    config: Config
    name: str
    out: Path | None = None
    resumed_run: Path | None = None
    checkpoint: Checkpoint | None = None
    device: str | None = None

    @property
    def run_directory(self) -> str:
        """The run directory that it goes on with, or would make. Raises FileError if that one is taken."""
        if self.resumed_run is None and self.out is not None:
            directory.check_empty(self.out)
        return str(self.resumed_run or self.out or directory.free_directory(OUTPUTS, self.name))


class SessionResult(NamedTuple):
    """A training that ended or was interrupted; `exit_code` is 0 or that of the signal."""

    run: Path
    result: TrainResult
    config: Config
    device: str
    engine: str
    exit_code: int


def plan_training(
    source: str | None, overrides: Sequence[str], *, out: Path | None, resume: str | None, device: str | None
) -> TrainPlan:
    """Make out what the options of `maml train` ask for; writes nothing.

    `resume` is a run or checkpoint, or `auto`: the newest unfinished run of the same config, or else a new one.
    """
    if resume is not None and resume != "auto":
        if source is not None or overrides or out is not None:
            raise ConfigError("--resume goes on with a run as it is: leave out --config, --set and --out")
        return _plan_resumed(Path(resume), device)
    on_device = [f"run.device={device}"] if device else []
    loaded = load_config(source or "quickstart", [*overrides, *on_device])
    found = _find_unfinished(loaded.config, out) if resume else None
    return TrainPlan(loaded.config, loaded.name, out, found.run if found else None, found)


def run_session(plan: TrainPlan, choice: Choice, engine: Choice, *, quiet: bool) -> SessionResult:
    """Train what is planned; a first Ctrl-C or SIGTERM saves and stops."""
    say: Notify = (lambda text: None) if quiet else print_message
    config, resumed = plan.config, plan.checkpoint
    _check_memory(config, choice)
    runtime.set_threads(config.run.threads)
    runtime.keep_freed_memory()
    runtime.avoid_dynamo_import()
    with catch_stop() as stop:
        experiment = build_experiment(config, choice.device)
        state = _restored(resumed, experiment) if resumed else init_state(config, experiment)
        name, advance = _make_with_fallback(engine, config, experiment, say)
        run = plan.resumed_run or directory.create_run(plan.out, name=plan.name, config=config, parent=OUTPUTS)
        with directory.training_lock(run), _report_unsaved_stop(stop, run):
            if plan.resumed_run:
                _prepare_resume(run, config, resumed)
            say(f"{run}: {f'goes on from step {state.step:,}' if plan.resumed_run else 'a new run'}")
            for line in training_summary(config, choice, engine):
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
        print_message(f"seed {seed} diverged at outer step {step:,} and stays as it was before; the others went on")
    rate = trained.steps_done / trained.seconds
    done = f"in {trained.seconds:.1f} s, {rate:,.0f} outer steps/s" if trained.steps_done else "nothing left to do"
    say(f"{run}: at step {trained.step:,} of {config.outer.steps:,}, {done}")
    if trained.interrupted:
        assert stop.received is not None
        # Said even when quiet: whoever stopped it needs to know.
        print_message(f"stopped by {stop.received.name}; saved. Go on with: maml train --resume {run}")
    else:
        say(f"next: maml eval --checkpoint {run}")
    return SessionResult(run, trained, config, choice.name, name, stop.exit_code if trained.interrupted else 0)


def _make_with_fallback(engine: Choice, config: Config, experiment: Experiment, say: Notify) -> tuple[str, Engine]:
    """The engine; and where the one that was chosen for the config does not compile, the one that need not."""
    try:
        return engine.name, registry.make_engine(engine.name, config, experiment, notify=say)
    except ConfigError as error:
        if config.run.engine != "auto":
            raise
        print_message(f"{error}")
        return "eager", registry.make_engine("eager", config, experiment)


def _restored(checkpoint: Checkpoint, experiment: Experiment) -> TrainState:
    try:
        return restore_state(checkpoint.config, experiment, checkpoint.contents)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.file}: {error}") from None


def _plan_resumed(path: Path, device: str | None) -> TrainPlan:
    if path.is_dir() and not any(path.glob("checkpoints/step-*.pt")) and (config := directory.read_config(path)):
        # It died before its first checkpoint: from the beginning, then.
        return TrainPlan(config, path.name, resumed_run=path, device=device)
    found = directory.open_checkpoint(path)
    if found.run is None:
        raise ConfigError(f"{path}: not in a run directory; --resume takes a run, or a checkpoint inside one")
    written = found.run / "config.yaml"
    if written.exists() and directory.read_config(found.run) != found.config:
        raise ConfigError(
            f"{written}: not the config of its checkpoints, and a run goes on as it began; put it right, or delete it "
            f"to have it written again, or start a new run with --config"
        )
    return TrainPlan(found.config, found.label, resumed_run=found.run, checkpoint=found, device=device)


def _find_unfinished(config: Config, out: Path | None) -> Checkpoint | None:
    """The run in `out`, or else the newest one with steps left to do, if it has this very config."""
    runs = [out] if out else [file.parent for file in OUTPUTS.glob("*/last.json")]
    runs = [run for run in runs if any(run.glob("checkpoints/step-*.pt")) and directory.read_config(run) == config]
    for run in sorted(runs, key=_last_saved, reverse=True):
        found = directory.open_checkpoint(run)
        if out or found.step < config.outer.steps:
            return found
    return None


def _last_saved(run: Path) -> float:
    last = run / "last.json"
    return last.stat().st_mtime if last.exists() else 0.0


def _prepare_resume(run: Path, config: Config, resumed: Checkpoint | None) -> None:
    """Bring the files of `run` to where training goes on, and say what is missing from them."""
    step = resumed.step if resumed else 0
    if resumed and resumed.warning:
        print_message(resumed.warning)
    if not (run / "config.yaml").exists():
        directory.write_config(run, resumed.config if resumed else config)
    (run / "checkpoints").mkdir(exist_ok=True)
    directory.truncate_to(resumed, run)
    logged = sum("loss" in record for record in read_lines(run / "metrics.jsonl"))
    lost = step // config.run.log_every - logged
    if lost > 0:
        print_message(f"{run / 'metrics.jsonl'}: {lost} lines from before step {step:,} are missing, and stay so")


@contextlib.contextmanager
def _report_unsaved_stop(stop: Stop, run: Path) -> Iterator[None]:
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
    memory = runtime.physical_memory()
    if choice.name == "cpu" and memory is not None and needed > memory:
        raise ConfigError(
            f"one layer of {tasks:,} tasks with {points:,} points needs {needed / 2**30:,.0f} GiB, this machine has "
            f"{memory / 2**30:,.0f}; lower outer.tasks_per_step, tasks.num_support or tasks.num_query"
        )
