"""Trainings and evaluations of the published results, each in a process of its own.

A run directory that already holds a finished training is only evaluated, and an interrupted training is resumed.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from maml_cli.dev.results_document import RunResult, ShotsResult, StepErrors
from maml_cli.dev.results_plan import ResultRow
from maml_cli.errors import UserError
from maml_cli.runs import read_lines

Notify = Callable[[str], None]


class Job(NamedTuple):
    """One training and its evaluation, as a process gets it.

    row: the row of the plan.
    seed: seed of the training.
    run: run directory.
    overrides: further changes to the config, after those of the row.
    num_tasks: number of test tasks.
    """

    row: ResultRow
    seed: int
    run: Path
    overrides: tuple[str, ...]
    num_tasks: int


def plan_jobs(rows: Sequence[ResultRow], *, runs: Path, overrides: Sequence[str], num_tasks: int) -> list[Job]:
    """One job for each seed of each row, with its run directory in `runs`."""
    return [
        Job(row, seed, runs / f"{row.name}-seed{seed}", tuple(overrides), num_tasks)
        for row in rows
        for seed in row.seeds
    ]


def train_and_evaluate(job: Job) -> RunResult:
    """Train the config of `job`, or resume its run, and evaluate it with one thread."""
    from maml_cli.runtime import set_threads
    from maml_cli.training import plan_training, run_session

    set_threads(1)
    overrides = [*job.row.overrides, f"run.seed={job.seed}", *job.overrides]
    plan = plan_training(job.row.preset, overrides, out=job.run, resume="auto", device=None)
    session = run_session(plan, quiet=True)
    if session.exit_code:
        raise KeyboardInterrupt
    results = [
        ShotsResult(shots, grid_errors(job.run, shots=shots, steps=max(job.row.steps), num_tasks=job.num_tasks))
        for shots in job.row.shots
    ]
    return RunResult(job.seed, plan.config.outer.steps, session.engine, training_seconds(job.run), results)


def grid_errors(run: Path, *, shots: int, steps: int, num_tasks: int) -> list[StepErrors]:
    """Squared errors of the trained run at `run` on the grid, after 0, 1, ..., `steps` inner steps.

    The test tasks are those of `maml eval` with seed 0. Baselines are not computed.
    """
    from maml_cli.evaluation import Protocol, learner_statistics, open_run

    protocol = Protocol(num_tasks=num_tasks, shots=(shots,), steps=steps)
    (by_step,) = learner_statistics(open_run(run), protocol)
    return [StepErrors(*statistic) for statistic in by_step]


def training_seconds(run: Path) -> float:
    """Seconds that the training in `run` took, summed over its resumptions: the clock of each starts at zero."""
    times = [float(record["seconds"]) for record in read_lines(run / "timing.jsonl") if "seconds" in record]
    return sum(now for now, after in pairwise([*times, 0.0]) if after < now)


def run_jobs(jobs: Sequence[Job], *, processes: int, notify: Notify) -> dict[str, list[RunResult]]:
    """Run `jobs`, `processes` at a time; the results by name of their row, in the order of the seeds.

    A failed job is reported to `notify`, and the other jobs continue. Rows without results for all seeds are omitted.
    """
    results: dict[str, list[RunResult]] = {job.row.name: [] for job in jobs}
    started = time.perf_counter()
    # A fresh process each, so that a training finds the machine as `maml train` does.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), max_tasks_per_child=1)
    pending = {pool.submit(train_and_evaluate, job): job for job in jobs}
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
