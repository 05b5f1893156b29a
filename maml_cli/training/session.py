"""A training from plan to result: a new or resumed run on its device and engine, safe from interruption."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from maml_cli import runtime
from maml_cli.config import Config
from maml_cli.core import MetaParams, select_run
from maml_cli.engines import Engine, TrainState, make_engine
from maml_cli.errors import CheckpointError, ConfigError, DivergedError, FileError, InterruptedRun
from maml_cli.experiment import Experiment, build_experiment
from maml_cli.messages import print_message, quoted
from maml_cli.reading import reason
from maml_cli.runs import Checkpoint, directory, timing
from maml_cli.runtime import Choice
from maml_cli.training.extension import remove_extra_checkpoint
from maml_cli.training.loop import TrainResult, train
from maml_cli.training.plan import TrainPlan
from maml_cli.training.prepared_run import prepared_run
from maml_cli.training.processes import ONE_PROCESS, Processes
from maml_cli.training.progress import evaluation_progress, format_seconds, progress
from maml_cli.training.recorder import Hooks, Observe, observe_nothing
from maml_cli.training.result_advice import result_advice
from maml_cli.training.run_groups import RunGroup, group_configs, select_run_contents
from maml_cli.training.saving import check_initial_values
from maml_cli.training.sharing import block_share, check_shareable
from maml_cli.training.signals import Stop, catch_stop
from maml_cli.training.snapshot import init_state, restore_state
from maml_cli.training.summary import sharing_summary

Notify = Callable[[str], None]
OnStep = Callable[[int, float], None]
STOPPED_BY_CALLER = 255
"""`TrainResult.stopped_by` of a training that its caller stopped; no signal has this number."""


class SessionResult(NamedTuple):
    """A training that reached its last outer step or was interrupted.

    run: the run directory.
    result: steps, seconds and newest checkpoint.
    config: the config of the run.
    device, engine: names of those that were used.
    exit_code: 0, or 128 + the number of the signal that interrupted it.
    """

    run: Path
    result: TrainResult
    config: Config
    device: str
    engine: str
    exit_code: int


def run_session(
    plan: TrainPlan,
    *,
    quiet: bool,
    processes: Processes = ONE_PROCESS,
    on_step: OnStep = lambda step, loss: None,
    should_stop: Callable[[], bool] = lambda: False,
    observe: Observe = observe_nothing,
) -> SessionResult:
    """Train as planned; the first Ctrl-C, SIGTERM or SIGHUP saves and stops. Messages go to stderr.

    `on_step` is called after every block of outer steps, with the steps taken and the mean query loss. Once
    `should_stop()`, which is asked after that, training saves and stops as after a signal. `observe` makes the observer
    of the leader's records. Raises ConfigError, FileError or CheckpointError before anything is trained, DivergedError
    and InterruptedRun.
    """
    quiet = quiet or not processes.is_leader
    notify: Notify = (lambda text: None) if quiet else print_message
    config = plan.config
    runtime.set_threads(config.run.threads)
    runtime.keep_freed_memory()
    runtime.avoid_dynamo_import()
    with catch_stop() as stop, _report_early_stop(stop), evaluation_progress(quiet=quiet) as on_tasks:
        stop.can_save = False
        processes.lead(lambda: check_shareable(config, processes))
        built: list[tuple[Choice, RunGroup]] = []
        processes.together(lambda: built.extend(_make_groups(plan, processes, notify)))
        groups = [group for _, group in built]
        choice = built[0][0] if built else plan.engine
        with contextlib.ExitStack() as stack:
            run = processes.lead(lambda: stack.enter_context(prepared_run(plan)))
            stack.enter_context(_report_unsaved_stop(stop, run))
            processes.announce(str(run))
            first_step = plan.checkpoint.step if plan.checkpoint else 0
            notify(f"{run}: {f'resumed at outer step {first_step:,}' if plan.resumed_run else 'new run'}")
            for line in [*plan.summary(choice), *sharing_summary(config, processes)]:
                notify(f"  {line}")
            with _step_progress(config, first_step, on_step, quiet=quiet) as report_step:
                stop.can_save = True
                stopped_by = partial(_stopped_by, stop, should_stop)
                observe = observe if processes.is_leader else observe_nothing
                with (
                    _recorded(run, first_step, choice.name, plan.device.name, processes),
                    observe(config, run, plan.checkpoint.step if plan.checkpoint else None) as observer,
                ):
                    hooks = Hooks(report_step, on_tasks, stopped_by, stop.abandonable, observer)
                    result = train(config, groups, run, processes=processes, hooks=hooks)
    if processes.is_leader:
        if plan.extension:
            remove_extra_checkpoint(run, plan.extension, result.step)
        _report(run, result, config, notify, quiet=quiet)
    exit_code = 128 + result.stopped_by if result.interrupted else 0
    return SessionResult(run, result, config, plan.device.name, choice.name, exit_code)


@contextlib.contextmanager
def _step_progress(config: Config, first_step: int, on_step: OnStep, *, quiet: bool) -> Iterator[OnStep]:
    """A function that shows the progress of a training from `first_step` on, and calls `on_step`."""
    tasks_per_step = config.outer.tasks_per_step * len(config.seeds)
    with progress(
        first_step=first_step, steps=config.outer.steps, tasks_per_step=tasks_per_step, quiet=quiet
    ) as show_step:

        def report_step(step: int, loss: float) -> None:
            show_step(step, loss)
            on_step(step, loss)

        yield report_step


def _stopped_by(stop: Callable[[], int], should_stop: Callable[[], bool]) -> int:
    """The signal that stops a training, or STOPPED_BY_CALLER; 0 while it goes on."""
    return stop() or (STOPPED_BY_CALLER if should_stop() else 0)


def _make_groups(plan: TrainPlan, processes: Processes, notify: Notify) -> list[tuple[Choice, RunGroup]]:
    """The runs that this process trains, each group with its engine, in their state at the start or at a checkpoint."""
    shares = group_configs(plan.config, processes)
    return [_make_group(plan, index, config, processes, notify) for index, config in shares]


def _make_group(
    plan: TrainPlan, index: int, config: Config, processes: Processes, notify: Notify
) -> tuple[Choice, RunGroup]:
    experiment = build_experiment(plan.located(config), plan.device.device)
    if plan.checkpoint:
        state = _restore(plan.checkpoint, config, experiment, index)
    else:
        state = init_state(config, experiment, _initial_values(plan, config, index))
        check_initial_values(config, state)
    choice, engine = _make_with_fallback(plan.engine, config, experiment, processes, notify)
    is_recorded = processes.is_leader or len(plan.config.seeds) > 1
    return choice, RunGroup(config, experiment, state, engine, is_recorded)


def _initial_values(plan: TrainPlan, config: Config, index: int) -> MetaParams | None:
    """The initial values that the runs of `config` take over: those of all runs, or of the one at `index`."""
    if plan.warm_start is None:
        return None
    values, is_single = plan.warm_start.meta_params, len(config.seeds) < len(plan.config.seeds)
    return select_run(values, index) if is_single else values


def _make_with_fallback(
    choice: Choice, config: Config, experiment: Experiment, processes: Processes, notify: Notify
) -> tuple[Choice, Engine]:
    """Build the chosen engine; if it fails to compile and run.engine is auto, fall back to eager.

    Several processes do not: their results would depend on which of them compile.
    """
    blocks = block_share(config, processes)
    try:
        return choice, make_engine(choice.name, config, experiment, notify=notify, blocks=blocks)
    except (ConfigError, FileError) as error:
        if config.run.engine != "auto" or processes.size > 1:
            raise
        print_message(f"{error}")
        fallback = Choice("eager", f"{choice.name} could not be built")
        return fallback, make_engine(fallback.name, config, experiment)


def _restore(checkpoint: Checkpoint, config: Config, experiment: Experiment, index: int) -> TrainState:
    """The state of the runs of `config` in a checkpoint: all of its runs, or the one at `index`."""
    is_single = len(config.seeds) < len(checkpoint.config.seeds)
    contents = select_run_contents(checkpoint.contents, index) if is_single else checkpoint.contents
    try:
        return restore_state(config, experiment, contents)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.file}: {error}; take another checkpoint") from None


@contextlib.contextmanager
def _report_early_stop(stop: Stop) -> Iterator[None]:
    """Raise InterruptedRun for a signal before training, while a kernel is compiled for instance."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRun("stopped before training began", exit_code=stop.exit_code or 130) from None


@contextlib.contextmanager
def _report_unsaved_stop(stop: Stop, run: Path) -> Iterator[None]:
    """Raise InterruptedRun for a second signal that left no time to save, FileError for a file that is not written."""
    try:
        yield
    except OSError as error:
        file = f"{error.filename}: " if error.filename else f"{run}: "
        advice = f"then resume with: maml train --resume {quoted(run)}"
        raise FileError(f"{file}cannot be written: {reason(error)}; correct that, {advice}") from None
    except KeyboardInterrupt:
        message = (
            f"{run}: stopped before it could save; resume its newest checkpoint with: maml train --resume {quoted(run)}"
        )
        raise InterruptedRun(message, exit_code=stop.exit_code or 130) from None


@contextlib.contextmanager
def _recorded(run: Path, step: int, engine: str, device: str, processes: Processes) -> Iterator[None]:
    """Record the start of a training at outer step `step`, and that it diverged, in timing.jsonl."""
    if processes.is_leader:
        timing.write_start(run, step, engine=engine, device=device, torch_version=torch.__version__)
    try:
        yield
    except DivergedError as error:
        with contextlib.suppress(OSError):  # the divergence itself is reported
            timing.write_divergence(run, error.outer_step, error.cause)
        raise


def _report(run: Path, result: TrainResult, config: Config, notify: Notify, *, quiet: bool) -> None:
    """Print the end of a training; diverged seeds even if messages are off."""
    for seed, step in result.diverged.items():
        print_message(f"seed {seed} diverged at outer step {step:,} and is frozen; the others continued")
    done = f"after {format_seconds(result.seconds)}" if result.steps_done else "nothing left to do"
    notify(f"{run}: at outer step {result.step:,} of {config.outer.steps:,}, {done}")
    if result.steps_done and (earlier := directory.result_names(run)):
        notify(f"{run}: {', '.join(earlier)}: of an earlier outer step, to be written again")
    if result.stopped_by == STOPPED_BY_CALLER:
        notify("stopped; checkpoint saved")
    elif not result.interrupted:
        if not quiet and (advice := result_advice(run, config)):
            notify(advice)
        notify(f"next: maml eval --checkpoint {quoted(run)}")
