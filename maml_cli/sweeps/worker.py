"""Workers: processes that claim the trials of a sweep one after the other, train them and record their errors."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import NamedTuple

from optuna.trial import TrialState

from maml_cli.config import Config
from maml_cli.errors import ConfigError, DivergedError
from maml_cli.evaluation import mean
from maml_cli.runs import EvaluationRecord, metrics
from maml_cli.sweeps.liveness import Watch, heartbeat, worker_lock
from maml_cli.sweeps.record import Sweep
from maml_cli.sweeps.slots import FINAL, Claim, claim_slot, enter_slots, is_live, trials_by_slot
from maml_cli.sweeps.space import trial_config
from maml_cli.sweeps.storage import Store, quiet_optuna, storage_errors
from maml_cli.training import (
    STOPPED_BY_CALLER,
    Observe,
    SessionResult,
    observe_nothing,
    plan_training,
    run_session,
)

ERRORS, STEP, PROBLEM = "errors", "step", "problem"
"""Attributes of a trial: its last validation error by seed (null if that is not finite), the outer step of it, and the
message of a configuration that could not be trained or that diverged."""
SECONDS_BETWEEN_LOOKS = 1.0

OnTrial = Callable[[str], None]
"""Called with a line about each trial that begins or ends."""


@dataclass
class _Follower:
    """The validation errors of a trial, reported as they are written, and the decision to prune it.

    claim: the trial.
    config: its config.
    prunes: whether a trial whose errors are above the median of the others' is stopped.
    taken: set if another worker has taken the trial.
    errors: the last validation error of each seed; infinite where it diverged.
    step: the outer step of these.
    is_pruned: whether the trial is stopped.
    """

    claim: Claim
    config: Config
    prunes: bool
    taken: Event
    errors: list[float] = field(default_factory=list)
    step: int = 0
    is_pruned: bool = False

    def report(self, record: EvaluationRecord) -> None:
        """Report the errors of one evaluation."""
        by_run = record.grid_mae if self.config.measure == "mae" else record.grid_mse
        self.errors = [errors[-1] if math.isfinite(errors[-1]) else math.inf for errors in by_run]
        self.step = record.step
        if self.prunes:
            self.claim.trial.report(mean(self.errors), record.step)

    def should_stop(self) -> bool:
        """Whether training saves and stops."""
        return self.is_pruned or self.taken.is_set()


class Outcome(NamedTuple):
    """The end of one trial.

    text: a line about it.
    exit_code: 128 + the number of the signal that stopped it; 0 if none did.
    """

    text: str
    exit_code: int = 0


def work(
    sweep: Sweep, store: Store, *, on_trial: OnTrial = lambda text: None, observe: Observe = observe_nothing
) -> int:
    """Train trials until none waits and none is left by a worker that died; the exit code, 0 unless a signal came.

    Trials that other workers train are left to them. Raises FileError and CheckpointError, after which the trial waits
    again, and InterruptedRun.
    """
    watch = Watch(sweep.directory)
    with quiet_optuna(), storage_errors(sweep), worker_lock(sweep.directory) as worker:
        while True:
            enter_slots(store, sweep.space, watch)
            claim = claim_slot(store, sweep.space, worker)
            if claim is not None:
                on_trial(f"{_name(sweep, claim)}: begins")
                try:
                    outcome = _train(sweep, store, claim, observe)
                except BaseException:
                    _release(store, claim)
                    raise
                if outcome.exit_code:
                    return outcome.exit_code  # the caller says that the sweep stopped
                on_trial(f"{_name(sweep, claim)}: {outcome.text}")
            elif _is_settled(sweep, store, watch):
                return 0
            else:
                time.sleep(SECONDS_BETWEEN_LOOKS)


def _is_settled(sweep: Sweep, store: Store, watch: Watch) -> bool:
    """Whether every slot has ended for good or is trained by a worker that lives."""
    lives = [
        trial.state.is_finished() or (trial.state == TrialState.RUNNING and watch.is_alive(trial) is True)
        for trials in trials_by_slot(store, sweep.space).values()
        for trial in trials
        if is_live(trial)
    ]
    return all(lives) and len(lives) >= sweep.space.num_trials


def _train(sweep: Sweep, store: Store, claim: Claim, observe: Observe) -> Outcome:
    """Train one trial, resuming its run if it has one, and record its end."""
    run = sweep.run(claim.slot)
    try:
        option = "--grid" if sweep.space.is_grid else "--range"
        config = trial_config(sweep.config, claim.values, option=option)
        plan = plan_training(config, (), out=run, resume="auto", device=None)
    except ConfigError as error:
        return _fail(store, claim, error.lines[0])
    with heartbeat(store, claim.number) as taken:
        follower = _Follower(claim, config, not sweep.space.is_grid, taken)
        first_step = plan.checkpoint.step if plan.checkpoint else -1
        for record in metrics.read_evaluations(run) if plan.resumed_run else []:
            if record.step <= first_step:
                follower.report(record)

        def on_step(step: int, loss: float) -> None:
            if step % config.run.eval_every == 0 or step == config.outer.steps:
                record = metrics.read_final_evaluation(run, step)
                if record is not None and record.step != follower.step:
                    follower.report(record)
                    follower.is_pruned = follower.prunes and claim.trial.should_prune() and step < config.outer.steps

        try:
            session = run_session(plan, quiet=True, on_step=on_step, should_stop=follower.should_stop, observe=observe)
        except DivergedError as error:
            follower.errors = [math.inf] * len(config.seeds)
            claim.trial.set_user_attr(PROBLEM, error.lines[0])
            return _tell(store, claim, follower, TrialState.COMPLETE)
        except ConfigError as error:
            return _fail(store, claim, error.lines[0])
    return _finish(store, claim, follower, session)


def _finish(store: Store, claim: Claim, follower: _Follower, session: SessionResult) -> Outcome:
    if follower.taken.is_set():
        return Outcome("taken by another worker, as this one did not answer")
    if session.result.stopped_by == STOPPED_BY_CALLER:
        return _tell(store, claim, follower, TrialState.PRUNED)
    if session.result.interrupted:
        _release(store, claim)
        return Outcome("stopped", session.exit_code)
    if session.result.diverged:
        seeds = ", ".join(map(str, session.result.diverged))
        claim.trial.set_user_attr(PROBLEM, f"diverged: seed {seeds}")
    return _tell(store, claim, follower, TrialState.COMPLETE)


def _tell(store: Store, claim: Claim, follower: _Follower, state: TrialState) -> Outcome:
    """Record the errors of a trial that ended; its objective is their mean over seeds."""
    errors = [error if math.isfinite(error) else None for error in follower.errors]
    claim.trial.set_user_attr(ERRORS, errors)
    claim.trial.set_user_attr(STEP, follower.step)
    value = mean(follower.errors) if follower.errors else math.inf
    store.study.tell(claim.number, None if state == TrialState.PRUNED else value, state=state)
    words = f"pruned at outer step {follower.step:,}, " if state == TrialState.PRUNED else ""
    return Outcome(f"{words}validation {follower.config.measure.upper()} {value:.4g}")


def _fail(store: Store, claim: Claim, problem: str) -> Outcome:
    """Record a configuration that cannot be trained; it is not tried again."""
    claim.trial.set_user_attr(PROBLEM, problem)
    claim.trial.set_user_attr(FINAL, True)
    store.study.tell(claim.number, state=TrialState.FAIL)
    return Outcome(f"failed: {problem}")


def _release(store: Store, claim: Claim) -> None:
    """Leave a trial that was stopped to the next worker, which resumes its run."""
    with contextlib.suppress(Exception):  # a database that does not answer: the lock or the heartbeat tells the others
        store.study.tell(claim.number, state=TrialState.FAIL, skip_if_finished=True)


def _name(sweep: Sweep, claim: Claim) -> str:
    values = ", ".join(f"{key}={text}" for key, text in claim.values.items())
    return f"trial {claim.slot} of {sweep.space.num_trials} ({values})"
