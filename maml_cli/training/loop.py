"""The outer loop of meta-training, which logs, evaluates, saves, and stops where it is asked to."""

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maml_cli.config import Config
from maml_cli.engines import StepResult
from maml_cli.errors import DivergedError
from maml_cli.runs import directory, save_checkpoint
from maml_cli.training.advice import divergence_advice
from maml_cli.training.processes import ONE_PROCESS, Processes
from maml_cli.training.recorder import Hooks, Recorder
from maml_cli.training.run_groups import RunGroup, take_steps
from maml_cli.training.saving import check_initial_values
from maml_cli.training.signals import Rescue

TARGET_SECONDS_PER_CALL = 0.1
"""Seconds that a call of the engine should take: long enough to amortise its start, short enough for Ctrl-C."""
MAX_STEPS_PER_CALL = 1000
"""Outer steps of one call at most: the tasks of all of them are sampled at once and take memory."""
SECONDS_OF_SLOW_STEP = 0.25
"""Seconds of an outer step from which its start is copied, so that a stop loses none but the unfinished step."""

NO_HOOKS = Hooks()


class TrainResult(NamedTuple):
    """A training that reached its last outer step or was interrupted.

    checkpoint: path of the newest checkpoint.
    step: outer steps taken in all.
    steps_done: outer steps taken by this process.
    seconds: duration of the training in this process.
    interrupted: whether it stopped before the last outer step.
    stopped_by: number of the signal that interrupted it, in whichever process; 0 for none.
    diverged: the outer step at which each diverged seed was frozen.
    """

    checkpoint: Path
    step: int
    steps_done: int
    seconds: float
    interrupted: bool
    stopped_by: int
    diverged: dict[int, int]


def train(
    config: Config,
    groups: Sequence[RunGroup],
    run: Path,
    *,
    processes: Processes = ONE_PROCESS,
    hooks: Hooks = NO_HOOKS,
) -> TrainResult:
    """Train `groups` to the last outer step of `config`, with metrics and checkpoints in `run`; mutates their states.

    Engines are called for about TARGET_SECONDS_PER_CALL at a time. After each call and within evaluations, training
    saves and stops if `hooks.interrupted()` in any of the `processes`; an evaluation that did not end is repeated when
    the run is resumed. Raises DivergedError with advice if all runs diverged; the checkpoints then have finite values
    only.
    """
    recorder = Recorder(config, groups, run, processes, hooks)
    started, seconds_per_step = time.perf_counter(), 1.0  # not measured yet: the first call takes one outer step
    first_step = step = max(processes.exchange(max((group.state.step for group in groups), default=0)))
    file = directory.checkpoint_file(run, step)
    is_new = step == 0 and not recorder.has_checkpoint(step)
    if is_new:
        for group in groups:
            check_initial_values(group.config, group.state)
    lacks_evaluation = _is_due(config, step, config.run.eval_every) and recorder.lacks_evaluation(step)
    stopped_by = recorder.evaluate() if lacks_evaluation else 0
    if is_new:
        file = recorder.save(step, last=None)
    while not stopped_by and step < config.outer.steps:
        most = min(MAX_STEPS_PER_CALL, _steps_until_next_record(config, step))
        count = max(1, min(most, int(TARGET_SECONDS_PER_CALL / seconds_per_step)))
        count, stopped_by = _agree(processes, count, hooks.interrupted())
        if stopped_by:
            break
        call_started = time.perf_counter()
        with hooks.abandonable(*_rescue(recorder, seconds_per_step, is_first=step == first_step)):
            outcomes = [take_steps(group, count) for group in groups]
        results, step = [result for result, _ in outcomes], step + count
        loss = _mean_loss(recorder, [(group, *outcome) for group, outcome in zip(groups, outcomes, strict=True)], file)
        seconds_per_step = (time.perf_counter() - call_started) / count
        if _is_due(config, step, config.run.log_every):
            recorder.write_losses(results, seconds=time.perf_counter() - started, steps_taken=step - first_step)
        if _is_due(config, step, config.run.eval_every):
            stopped_by = recorder.evaluate()
        if _is_due(config, step, config.run.checkpoint_every):
            file = recorder.save(step, last=file)
        hooks.on_step(step, loss)
    is_interrupted = step < config.outer.steps or stopped_by > 0
    if is_interrupted:
        file = recorder.save(step, last=file)
    seconds = time.perf_counter() - started
    return TrainResult(file, step, step - first_step, seconds, is_interrupted, stopped_by, _diverged(recorder))


class _Report(NamedTuple):
    """Outer steps that a process took: the sum of the losses of its active runs, their number, and its last error."""

    loss: float
    num_active: int
    error: DivergedError | None


def _agree(processes: Processes, count: int, stopped_by: int) -> tuple[int, int]:
    """The outer steps of the next call, from the leader, whose clock counts; the signal of any process."""
    offers = processes.exchange((count, stopped_by))
    return offers[0][0], max(signal for _, signal in offers)


def _mean_loss(
    recorder: Recorder, outcomes: Sequence[tuple[RunGroup, StepResult, DivergedError | None]], last: Path | None
) -> float:
    """The mean loss of the active runs of all processes; raises DivergedError, with advice, where none is active."""
    active = [result.loss[group.state.diverged == 0] for group, result, _ in outcomes]
    errors = [error for _, _, error in outcomes if error is not None]
    report = _Report(
        sum(float(losses.sum()) for losses in active), sum(map(len, active)), max(errors, key=_outer_step, default=None)
    )
    reports: list[_Report] = recorder.processes.exchange(report)
    num_active = sum(report.num_active for report in reports)
    if num_active == 0:
        error = max((report.error for report in reports if report.error is not None), key=_outer_step)
        lines = (*error.lines, divergence_advice(recorder.config, error), f"the last good checkpoint is {last}")
        recorder.processes.fail(DivergedError(*lines, outer_step=error.outer_step, cause=error.cause))
    return sum(report.loss for report in reports) / num_active


def _outer_step(error: DivergedError) -> int:
    return error.outer_step


def _diverged(recorder: Recorder) -> dict[int, int]:
    """The outer step at which each diverged seed of any process was frozen."""
    steps = {
        seed: step
        for group in recorder.groups
        for seed, step in zip(group.config.seeds, group.state.diverged.tolist(), strict=True)
        if step
    }
    shares = recorder.processes.exchange(steps)
    return {seed: step for share in shares for seed, step in share.items()}


def _rescue(recorder: Recorder, seconds_per_step: float, *, is_first: bool) -> tuple[Rescue, bool]:
    """A function that saves the state as it is now, if outer steps are slow, and whether nothing newer would be lost.

    Several processes save nothing: none of them has the states of all runs.
    """
    is_slow = seconds_per_step > SECONDS_OF_SLOW_STEP and not is_first and recorder.processes.size == 1
    contents = copy.deepcopy(recorder.contents()) if is_slow else None

    def rescue() -> None:
        if contents is not None:
            save_checkpoint(recorder.run, contents["step"], contents)
        recorder.report_unsaved()

    return rescue, is_slow or is_first


def _is_due(config: Config, step: int, every: int) -> bool:
    """Whether something that happens every so many outer steps, and after the last, is due; never if `every` is 0."""
    return every > 0 and (step % every == 0 or step == config.outer.steps)


def _steps_until_next_record(config: Config, step: int) -> int:
    """Outer steps until the next log line, evaluation or checkpoint."""
    run = config.run
    periods = [every for every in (run.log_every, run.eval_every, run.checkpoint_every) if every]
    return min(config.outer.steps - step, *(every - step % every for every in periods))
