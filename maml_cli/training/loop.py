"""The outer loop of meta-training, which logs, evaluates, saves, and stops where it is asked to."""

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

from maml_cli.config import Config
from maml_cli.engines import Engine, TrainState
from maml_cli.errors import DivergedError
from maml_cli.evaluation import OnTasks, ignore_tasks
from maml_cli.experiment import Experiment
from maml_cli.runs import directory, metrics, save_checkpoint
from maml_cli.training.advice import divergence_advice
from maml_cli.training.progress import print_message
from maml_cli.training.records import evaluation_record, loss_record
from maml_cli.training.saving import check_initial_values, save_finite
from maml_cli.training.signals import Rescue
from maml_cli.training.snapshot import snapshot

TARGET_SECONDS_PER_CALL = 0.1
"""Seconds that a call of the engine should take: long enough to amortise its start, short enough for Ctrl-C."""
MAX_STEPS_PER_CALL = 1000
"""Outer steps of one call at most: the tasks of all of them are sampled at once and take memory."""
SECONDS_OF_SLOW_STEP = 0.25
"""Seconds of an outer step from which its start is copied, so that a stop loses none but the unfinished step."""


class Hooks(NamedTuple):
    """Functions that a training calls.

    on_step: after each call of the engine, with the outer steps taken and the mean query loss.
    on_tasks: after each chunk of tasks of an evaluation.
    interrupted: whether training must save and stop; asked after each of these.
    abandonable: (rescue, is_saved) -> a context for a call that may take long; see Stop.abandonable.
    """

    on_step: Callable[[int, float], None] = lambda step, loss: None
    on_tasks: OnTasks = ignore_tasks
    interrupted: Callable[[], bool] = lambda: False
    abandonable: Callable[..., AbstractContextManager[None]] = lambda rescue, is_saved=True: nullcontext()


NO_HOOKS = Hooks()


class TrainResult(NamedTuple):
    """A training that reached its last outer step or was interrupted.

    checkpoint: path of the newest checkpoint.
    step: outer steps taken in all.
    steps_done: outer steps taken by this process.
    seconds: duration of the training in this process.
    interrupted: whether it stopped before the last outer step.
    diverged: the outer step at which each diverged seed was frozen.
    """

    checkpoint: Path
    step: int
    steps_done: int
    seconds: float
    interrupted: bool
    diverged: dict[int, int]


def train(
    config: Config,
    experiment: Experiment,
    state: TrainState,
    run: Path,
    *,
    engine: Engine,
    hooks: Hooks = NO_HOOKS,
) -> TrainResult:
    """Train `state` to the last outer step of `config`, with metrics and checkpoints in `run`; mutates `state`.

    The engine is called for about TARGET_SECONDS_PER_CALL at a time. After each call and within evaluations, training
    saves and stops if `hooks.interrupted()`; an evaluation that did not end is repeated when the run is resumed. Raises
    DivergedError with advice if all runs diverged; the checkpoints then have finite values only.
    """
    first_step, started = state.step, time.perf_counter()
    seconds_per_step = 1.0  # not measured yet: the first call takes one outer step
    file = directory.checkpoint_file(run, state.step)
    is_new = state.step == 0 and not file.exists()
    if is_new:
        check_initial_values(config, state)
    complete = not _lacks_evaluation(config, run, state.step) or _evaluate(config, experiment, state, run, hooks)
    if is_new:
        file = save_finite(config, state, run, last=None)
    while complete and state.step < config.outer.steps and not hooks.interrupted():
        most = min(MAX_STEPS_PER_CALL, _steps_until_next_record(config, state.step))
        count = max(1, min(most, int(TARGET_SECONDS_PER_CALL / seconds_per_step)))
        call_started = time.perf_counter()
        try:
            with hooks.abandonable(*_rescue(config, state, run, seconds_per_step, is_first=state.step == first_step)):
                result = engine(state, count)
        except DivergedError as error:
            lines = (*error.lines, divergence_advice(config, error), f"the last good checkpoint is {file}")
            raise DivergedError(*lines, outer_step=error.outer_step, cause=error.cause) from None
        seconds_per_step = (time.perf_counter() - call_started) / count
        if _is_due(config, state.step, config.run.log_every):
            metrics.write_losses(run, loss_record(config, experiment, state, result))
            seconds = time.perf_counter() - started
            metrics.write_timing(run, state.step, seconds=seconds, steps_taken=state.step - first_step)
            state.loss_sum.zero_()
            state.skipped_tasks.zero_()
        if _is_due(config, state.step, config.run.eval_every):
            complete = _evaluate(config, experiment, state, run, hooks)
        if _is_due(config, state.step, config.run.checkpoint_every):
            file = save_finite(config, state, run, last=file)
        hooks.on_step(state.step, result.loss[state.diverged == 0].mean().item())
    is_interrupted = state.step < config.outer.steps or not complete
    if is_interrupted:
        file = save_finite(config, state, run, last=file)
    seconds = time.perf_counter() - started
    diverged = {seed: step for seed, step in zip(config.seeds, state.diverged.tolist(), strict=True) if step}
    return TrainResult(file, state.step, state.step - first_step, seconds, is_interrupted, diverged)


class _EvaluationStopped(Exception):
    """A stop was asked for while an evaluation was computed."""


def _evaluate(config: Config, experiment: Experiment, state: TrainState, run: Path, hooks: Hooks) -> bool:
    """Evaluate and write the record; False if a stop was asked for before the end, and nothing was written."""

    def on_tasks(predictor: str, done: int, total: int) -> None:
        hooks.on_tasks(predictor, done, total)
        if done < total and hooks.interrupted():
            raise _EvaluationStopped

    def rescue() -> None:
        save_checkpoint(run, state.step, snapshot(config, state))
        print_message(f"stopped; checkpoint saved. Resume with: maml train --resume {run}")

    try:
        with hooks.abandonable(rescue, True):
            record = evaluation_record(config, experiment, state, on_tasks=on_tasks)
    except _EvaluationStopped:
        return False
    metrics.write_evaluation(run, record)
    return True


def _lacks_evaluation(config: Config, run: Path, step: int) -> bool:
    """Whether an evaluation at `step`, where training starts or resumes, is due and was not written."""
    if not _is_due(config, step, config.run.eval_every):
        return False
    return not metrics.ends_with_evaluation(run, step)


def _rescue(
    config: Config, state: TrainState, run: Path, seconds_per_step: float, *, is_first: bool
) -> tuple[Rescue, bool]:
    """A function that saves `state` as it is now, if outer steps are slow, and whether nothing newer would be lost."""
    is_slow = seconds_per_step > SECONDS_OF_SLOW_STEP and not is_first
    contents = copy.deepcopy(snapshot(config, state)) if is_slow else None
    advice = f"resume its newest checkpoint with: maml train --resume {run}"

    def rescue() -> None:
        if contents is not None:
            save_checkpoint(run, contents["step"], contents)
        print_message(f"{run}: stopped within an outer step; {advice}")

    return rescue, is_slow or is_first


def _is_due(config: Config, step: int, every: int) -> bool:
    """Whether something that happens every so many outer steps, and after the last, is due; never if `every` is 0."""
    return every > 0 and (step % every == 0 or step == config.outer.steps)


def _steps_until_next_record(config: Config, step: int) -> int:
    """Outer steps until the next log line, evaluation or checkpoint."""
    run = config.run
    periods = [every for every in (run.log_every, run.eval_every, run.checkpoint_every) if every]
    return min(config.outer.steps - step, *(every - step % every for every in periods))
