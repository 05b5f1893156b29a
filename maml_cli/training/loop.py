"""The outer loop of meta-training, which logs, evaluates, saves, and stops where it is asked to."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from maml_cli.config import Config
from maml_cli.engines import Engine, TrainState
from maml_cli.errors import DivergedError
from maml_cli.experiment import Experiment
from maml_cli.runs import directory, metrics
from maml_cli.training.advice import divergence_advice
from maml_cli.training.records import evaluation_record, loss_record
from maml_cli.training.saving import check_initial_values, save_finite

TARGET_SECONDS_PER_CALL = 0.1
"""Seconds that a call of the engine should take: long enough to amortise its start, short enough for Ctrl-C."""
MAX_STEPS_PER_CALL = 1000
"""Outer steps of one call at most: the tasks of all of them are sampled at once and take memory."""


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
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train `state` to the last outer step of `config`, with metrics and checkpoints in `run`; mutates `state`.

    The engine is called for about TARGET_SECONDS_PER_CALL at a time. After each call, `on_step(step, loss)` is called
    with the outer steps taken and the mean query loss, and training saves and stops if `interrupted()`. Raises
    DivergedError with advice if all runs diverged; the checkpoints then have finite values only.
    """
    first_step, started = state.step, time.perf_counter()
    seconds_per_step = 1.0  # not measured yet: the first call takes one outer step
    file = directory.checkpoint_file(run, state.step)
    if state.step == 0 and not file.exists():
        check_initial_values(config, state)
        if config.run.eval_every:
            metrics.write_evaluation(run, evaluation_record(config, experiment, state))
        file = save_finite(config, state, run, last=None)
    while state.step < config.outer.steps and not interrupted():
        most = min(MAX_STEPS_PER_CALL, _steps_until_next_record(config, state.step))
        count = max(1, min(most, int(TARGET_SECONDS_PER_CALL / seconds_per_step)))
        call_started = time.perf_counter()
        try:
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
            metrics.write_evaluation(run, evaluation_record(config, experiment, state))
        if _is_due(config, state.step, config.run.checkpoint_every):
            file = save_finite(config, state, run, last=file)
        on_step(state.step, result.loss[state.diverged == 0].mean().item())
    is_interrupted = state.step < config.outer.steps
    if is_interrupted:
        file = save_finite(config, state, run, last=file)
    seconds = time.perf_counter() - started
    diverged = {seed: step for seed, step in zip(config.seeds, state.diverged.tolist(), strict=True) if step}
    return TrainResult(file, state.step, state.step - first_step, seconds, is_interrupted, diverged)


def _is_due(config: Config, step: int, every: int) -> bool:
    """Whether something that happens every so many outer steps, and after the last, is due; never if `every` is 0."""
    return every > 0 and (step % every == 0 or step == config.outer.steps)


def _steps_until_next_record(config: Config, step: int) -> int:
    """Outer steps until the next log line, evaluation or checkpoint."""
    run = config.run
    periods = [every for every in (run.log_every, run.eval_every, run.checkpoint_every) if every]
    return min(config.outer.steps - step, *(every - step % every for every in periods))
