"""Trainings and evaluations of the published results, each run in a process of its own, the longest first.

A training that is finished is not repeated, also if `maml train` made it; one that was interrupted is resumed.
Evaluations that are stored are not repeated either, so that a kill at any time costs little.
"""

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import pairwise
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import NamedTuple

from maml_cli.config import Config, load_config
from maml_cli.dev.results_document import RunResult, StepErrors
from maml_cli.dev.results_plan import LSTM, ResultRow
from maml_cli.errors import DivergedError, UserError
from maml_cli.runs import open_checkpoint, read_config, read_lines
from maml_cli.runs.timing import read_timing

Notify = Callable[[str], None]

SLOWNESS = {"reference": 12.0, "eager": 5.0}
"""Time of a training by these engines, as a multiple of that by `native`, roughly."""


class Job(NamedTuple):
    """One training and its evaluations, as a process gets it.

    row: the row of the plan, with all overrides, and the cases to evaluate.
    seed: seed of the training.
    runs: directory of the run directories.
    """

    row: ResultRow
    seed: int
    runs: Path

    @property
    def run(self) -> Path:
        """The run directory."""
        return run_directory(self.row.name, self.seed, self.runs)

    @property
    def overrides(self) -> list[str]:
        """The changes of the preset."""
        return [*self.row.overrides, f"run.seed={self.seed}"]

    @property
    def config(self) -> Config:
        """The config of the training."""
        return load_config(self.row.preset, self.overrides).config


class Training(NamedTuple):
    """A training that ended.

    engine: its engine.
    seconds: seconds that it took.
    diverged_step: the outer step in which it diverged; None if it did not.
    num_values: number of meta-learned values.
    """

    engine: str
    seconds: float
    diverged_step: int | None
    num_values: int


def run_jobs(jobs: Sequence[Job], *, processes: int, notify: Notify) -> dict[str, list[RunResult]]:
    """Run `jobs`, `processes` at a time; the results by name of their row, in the order of the seeds.

    What is stored is not made again. A failed job is reported to `notify`, and the other jobs continue. Rows without
    results for all seeds are omitted.
    """
    results: dict[str, list[RunResult]] = {job.row.name: [] for job in jobs}
    to_make = []
    for job in sorted(jobs, key=cost, reverse=True):
        if stored := stored_result(job):
            results[job.row.name].append(stored)
        else:
            to_make.append(job)
    if len(to_make) < len(jobs):
        notify(f"{len(jobs) - len(to_make)} of {len(jobs)} are stored in full")
    started = time.perf_counter()
    # A fresh process each, so that a training finds the machine as `maml train` does.
    spawn = get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=spawn, max_tasks_per_child=1, initializer=end_with_parent)
    pending = {pool.submit(train_and_evaluate, job): job for job in to_make}
    try:
        for count, future in enumerate(as_completed(pending), start=1):
            job, minutes = pending[future], (time.perf_counter() - started) / 60
            try:
                results[job.row.name].append(future.result())
                notify(f"{count} of {len(to_make)}: {job.run}, {minutes:.1f} min")
            except Exception as error:  # of any kind: the other jobs continue
                message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                notify(f"{count} of {len(to_make)}: {job.run} failed: {message}")
    finally:
        pool.shutdown(cancel_futures=True)
    num_seeds = {job.row.name: len(job.row.seeds) for job in jobs}
    return {
        name: sorted(runs, key=lambda run: run.seed) for name, runs in results.items() if len(runs) == num_seeds[name]
    }


def run_directory(name: str, seed: int, runs: Path) -> Path:
    """The directory in `runs` of the training of the row `name` with a seed."""
    return runs / f"{name}-seed{seed}"


def end_with_parent() -> None:
    """End this process at once when the one that started it ends, killed or not: run directories survive that."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def cost(job: Job) -> float:
    """The time of a training in an arbitrary unit."""
    from maml_cli.experiment import outer_step_work

    config = job.config
    return outer_step_work(config) * config.outer.steps * SLOWNESS.get(config.run.engine, 1.0)


def train_and_evaluate(job: Job) -> RunResult:
    """Train the config of `job`, or resume its run, and evaluate its cases, with one thread, as far as that is not
    stored. Raises DivergedError if the LSTM diverges; that of another training is a result."""
    from maml_cli.dev.lstm_baseline import train_lstm
    from maml_cli.dev.results_evaluation import store_errors
    from maml_cli.runtime import set_threads
    from maml_cli.training import plan_training, run_session

    set_threads(1)
    if stored_training(job) is None:
        if job.row.learner == LSTM:
            train_lstm(job.config, job.run)
        else:
            plan = plan_training(job.row.preset, job.overrides, out=job.run, resume="auto", device=None)
            with contextlib.suppress(DivergedError):
                if run_session(plan, quiet=True).exit_code:
                    raise KeyboardInterrupt
    result = _result(job, store_errors)
    assert result is not None
    return result


def stored_result(job: Job) -> RunResult | None:
    """The result of a training that has ended and whose evaluations are all stored; None for another."""
    from maml_cli.dev.results_evaluation import stored_errors

    return _result(job, stored_errors)


def _result(job: Job, errors_of: Callable[..., list[StepErrors] | None]) -> RunResult | None:
    """The result of a training that has ended, with the errors that `errors_of` gives for each case; None where there
    are none."""
    from maml_cli.dev.results_evaluation import EVALUATIONS, last_step, open_learner, open_lstm

    training, errors = stored_training(job), {}
    if training is None:
        return None
    if training.diverged_step is None:
        learner = open_lstm(job.run, job.config) if job.row.learner == LSTM else open_learner(job.run)
        for case in job.row.cases:
            step = last_step(learner, job.row, case, job.config.trained_steps)
            steps = errors_of(learner, case, step, job.runs / EVALUATIONS / job.run.name / f"{case.name}.json")
            if steps is None:
                return None
            errors[case.name] = steps
    return RunResult(job.seed, job.config.outer.steps, *training, errors)


def stored_training(job: Job) -> Training | None:
    """The training of `job` if its run directory has it to its last outer step or to a divergence; None if not."""
    from maml_cli.dev.lstm_baseline import num_lstm_values, read_lstm
    from maml_cli.dev.results_evaluation import num_learned_values
    from maml_cli.experiment import build_experiment

    config = job.config
    if job.row.learner == LSTM:
        trained = read_lstm(config, job.run)
        return trained and Training("PyTorch", trained.seconds, None, num_lstm_values())
    if read_config(job.run) != config:
        return None
    timing = read_timing(job.run)
    if timing.diverged_step is None and not _is_finished(job.run, config):
        return None
    num_values = num_learned_values(build_experiment(config))
    return Training(timing.engine, training_seconds(job.run), timing.diverged_step, num_values)


def _is_finished(run: Path, config: Config) -> bool:
    """Whether the newest checkpoint of a run is the last of a training of `config`."""
    with contextlib.suppress(UserError):
        checkpoint = open_checkpoint(run)
        return checkpoint.config == config and checkpoint.step == config.outer.steps
    return False


def training_seconds(run: Path) -> float:
    """Seconds that the training in `run` took, summed over its resumptions: the clock of each starts at zero."""
    times = [float(record["seconds"]) for record in read_lines(run / "timing.jsonl") if "seconds" in record]
    return math.fsum(now for now, after in pairwise([*times, 0.0]) if after < now)
