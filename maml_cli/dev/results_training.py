"""Trainings and evaluations of the published results, each run in a process of its own, the longest first.

A training that is finished is not repeated, also if `maml train` made it; one that was interrupted is resumed.
Evaluations that are stored are not repeated either, so that a kill at any time costs little.
"""

import contextlib
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
from maml_cli.dev.results_document import RunResult
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

    A failed job is reported to `notify`, and the other jobs continue. Rows without results for all seeds are omitted.
    """
    results: dict[str, list[RunResult]] = {job.row.name: [] for job in jobs}
    started = time.perf_counter()
    # A fresh process each, so that a training finds the machine as `maml train` does.
    spawn = get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=spawn, max_tasks_per_child=1, initializer=end_with_parent)
    pending = {pool.submit(train_and_evaluate, job): job for job in sorted(jobs, key=cost, reverse=True)}
    try:
        for count, future in enumerate(as_completed(pending), start=1):
            job, minutes = pending[future], (time.perf_counter() - started) / 60
            try:
                results[job.row.name].append(future.result())
                notify(f"{count} of {len(jobs)}: {job.run}, {minutes:.1f} min")
            except Exception as error:  # of any kind: the other jobs continue
                message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                notify(f"{count} of {len(jobs)}: {job.run} failed: {message}")
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
    """Train the config of `job`, or resume its run, and evaluate its cases, with one thread."""
    from maml_cli.dev.results_evaluation import EVALUATIONS, case_errors, open_learner, open_lstm
    from maml_cli.runtime import set_threads

    set_threads(1)
    config, errors = job.config, {}
    training = train_lstm(job) if job.row.learner == LSTM else train(job)
    if training.diverged_step is None:
        learner = open_lstm(job.run, config) if job.row.learner == LSTM else open_learner(job.run)
        folder = job.runs / EVALUATIONS / job.run.name
        for case in job.row.cases:
            errors[case.name] = case_errors(learner, job.row, case, config.trained_steps, folder)
    return RunResult(job.seed, config.outer.steps, *training, errors)


def train(job: Job) -> Training:
    """Train the config of `job` unless its run is finished or has diverged; an interrupted run is resumed."""
    from maml_cli.dev.results_evaluation import num_learned_values
    from maml_cli.experiment import build_experiment
    from maml_cli.training import plan_training, run_session

    if not _has_ended(job):
        plan = plan_training(job.row.preset, job.overrides, out=job.run, resume="auto", device=None)
        with contextlib.suppress(DivergedError):
            if run_session(plan, quiet=True).exit_code:
                raise KeyboardInterrupt
    timing, num_values = read_timing(job.run), num_learned_values(build_experiment(job.config))
    return Training(timing.engine, training_seconds(job.run), timing.diverged_step, num_values)


def train_lstm(job: Job) -> Training:
    """Train the LSTM on the tasks of `job` unless that is done; nothing is stored before its end."""
    from maml_cli.dev import lstm_baseline

    if lstm_baseline.read_lstm(job.config, job.run) is None:
        lstm_baseline.train_lstm(job.config, job.run)
    trained = lstm_baseline.read_lstm(job.config, job.run)
    assert trained is not None
    return Training("PyTorch", trained.seconds, None, lstm_baseline.num_lstm_values())


def _has_ended(job: Job) -> bool:
    """Whether the run directory has this training to its last outer step, or to a divergence."""
    config = job.config
    if read_config(job.run) != config:
        return False
    if read_timing(job.run).diverged_step is not None:
        return True
    with contextlib.suppress(UserError):
        checkpoint = open_checkpoint(job.run)
        return checkpoint.config == config and checkpoint.step == config.outer.steps
    return False


def training_seconds(run: Path) -> float:
    """Seconds that the training in `run` took, summed over its resumptions: the clock of each starts at zero."""
    times = [float(record["seconds"]) for record in read_lines(run / "timing.jsonl") if "seconds" in record]
    return sum(now for now, after in pairwise([*times, 0.0]) if after < now)
