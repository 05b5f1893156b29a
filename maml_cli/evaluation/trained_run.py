"""Trained runs: a checkpoint opened for evaluation, its errors on test tasks, and the result on disk."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from maml_cli import runtime
from maml_cli.config import Config, override
from maml_cli.core import MetaParams
from maml_cli.errors import CheckpointError, ConfigError
from maml_cli.evaluation.evaluate import Evaluation, evaluate, learner_errors
from maml_cli.evaluation.held_out import Protocol, TestTasks, sample_test_tasks
from maml_cli.evaluation.statistics import statistic
from maml_cli.experiment import Experiment, build_experiment, choose_device
from maml_cli.runs import Checkpoint, open_checkpoint, write_atomic


class TrainedRun(NamedTuple):
    """A checkpoint ready to compute with.

    checkpoint: as read from disk, with the config of training.
    config: that config with the overrides of this evaluation.
    experiment: the functions and the family of `config`.
    meta_params: of all runs trained side by side, diverged runs included.
    name: of the run directory or the file, for tables.
    """

    checkpoint: Checkpoint
    config: Config
    experiment: Experiment
    meta_params: MetaParams
    name: str

    @property
    def title(self) -> str:
        """The run directory, or a checkpoint file outside of one, and its outer step."""
        last_step = self.checkpoint.config.outer.steps
        return f"{self.checkpoint.label} at outer step {self.checkpoint.step:,} of {last_step:,}"

    @property
    def max_steps(self) -> int | None:
        """The number of inner steps that have alphas, or None if it is not limited."""
        inner = self.config.inner
        return inner.steps if inner.has_per_step_params and inner.alpha.after_last_step is None else None

    def resolve_steps(self, steps: int | None, default: int) -> int:
        """`steps`, or if None the lesser of `default` and `max_steps`; raises ConfigError if `steps` > `max_steps`."""
        if steps is None:
            return min(default, self.max_steps or default)
        if self.max_steps and steps > self.max_steps:
            raise ConfigError(
                f"--steps {steps}: {self.checkpoint.label} has alphas for {self.max_steps} inner steps and no rule for "
                f"the rest; give at most that many, or to eval and plot --set inner.alpha.after_last_step=stop "
                f"(hold, decay)"
            )
        return steps

    @property
    def run_index(self) -> dict[int, int]:
        """Index of each seed on the run axis, diverged seeds left out (unless all diverged)."""
        diverged = self.checkpoint.contents.get("diverged", torch.zeros(1)).tolist()
        indices = {seed: index for index, seed in enumerate(self.checkpoint.config.seeds)}
        return {seed: index for seed, index in indices.items() if not diverged[index]} or indices

    @property
    def measure(self) -> str:
        """Primary error: `mae` if trained on L1, else `mse`."""
        return "mae" if self.config.inner.loss == "l1" else "mse"


def open_run(path: Path, *, overrides: Sequence[str] = (), device: str | None = None) -> TrainedRun:
    """Open the run or checkpoint at `path`; `overrides` may change its tasks and `inner.alpha.after_last_step`.

    Sets the number of threads of this process to that of the run. Raises ConfigError for other overrides, and FileError
    or CheckpointError if nothing can be opened.
    """
    checkpoint = open_checkpoint(path)
    for text in overrides:
        if not text.strip().startswith(("tasks.", "inner.alpha.after_last_step")):
            raise ConfigError(
                f"--set {text}: a trained run takes other tasks, such as tasks.phase=[0,1], and another "
                f"inner.alpha.after_last_step, but nothing else"
            )
        if text.strip().startswith(("tasks.num_query", "tasks.query_sampling")):
            raise ConfigError(f"--set {text}: has no effect: a test task has as many fresh points as support points")
    # Not the device of training: a run moves between machines.
    changes = [*overrides, f"run.device={device or 'auto'}"]
    config = override(checkpoint.config, changes, label=str(checkpoint.file))
    # More threads than free cores wait for one another: ten times slower than one thread on a busy machine.
    runtime.set_threads(config.run.threads)
    runtime.keep_freed_memory()
    experiment = build_experiment(config, choose_device(config).device)
    try:
        meta_params = experiment.load_meta_params(checkpoint.contents["meta_params"])
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.file}: {error}") from None
    name = checkpoint.label if path.is_dir() else str(path)
    return TrainedRun(checkpoint, config, experiment, meta_params, name)


class LearnerStatistic(NamedTuple):
    """Errors of a learner on the grid after an inner step, over test tasks.

    mean, ci95, median: as in Statistic.
    max: the largest error of a task.
    """

    mean: float
    ci95: float
    median: float
    max: float


def evaluate_run(run: TrainedRun, protocol: Protocol) -> list[Evaluation]:
    """One evaluation of `run` for each K of `protocol`, after every inner step."""
    steps = _inner_steps(run, protocol)
    return [
        evaluate(
            run.experiment,
            run.meta_params,
            tasks,
            steps=steps,
            trained_steps=run.config.trained_steps,
            run_index=run.run_index,
        )
        for tasks in held_out_tasks(run, protocol)
    ]


def learner_statistics(run: TrainedRun, protocol: Protocol, *, measure: str = "mse") -> list[list[LearnerStatistic]]:
    """Errors of the learner alone, without baselines: for each K of `protocol`, after 0, 1, ... inner steps.

    Of the first seed that has not diverged; `measure` is `mse` or `mae`.
    """
    steps = _inner_steps(run, protocol)
    index = next(iter(run.run_index.values()))
    results = []
    for tasks in held_out_tasks(run, protocol):
        errors = learner_errors(run.experiment, run.meta_params, tasks, steps=steps)
        grids = [step["grid"][index, :, ("mse", "mae").index(measure)].nan_to_num(nan=math.inf) for step in errors]
        results.append([LearnerStatistic(*statistic(grid)[:3], max=grid.max().item()) for grid in grids])
    return results


def held_out_tasks(run: TrainedRun, protocol: Protocol) -> list[TestTasks]:
    """The test tasks of `protocol` for each K, by default the K of training."""
    return [
        sample_test_tasks(
            run.experiment.family, seed=protocol.seed, purpose="test", num_tasks=protocol.num_tasks, num_shots=num_shots
        )
        for num_shots in protocol.shots or (run.config.tasks.num_support,)
    ]


def write_result(
    run: TrainedRun, document: str, protocol: Protocol, overrides: Sequence[str], out: Path | None = None
) -> str:
    """Write an evaluation to `out`, or by default to `eval.json` of the run directory; the line to print about it.

    `eval.json` is the result of the default protocol on the run's own family: any other result is written to `out` or
    not at all. An `eval.json` that cannot be written is no error, since the result is printed too. Raises OSError if
    `out` cannot be written.
    """
    directory = run.checkpoint.run
    if out is None and (overrides or not _is_default(run, protocol)):
        return "not written to a file: eval.json is for the default protocol, without overrides"
    if out is None and directory is None:
        return "not written to a file: the checkpoint is not in a run directory"
    file = out or Path(directory or "") / "eval.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, f"{document}\n".encode())
    except OSError as error:
        if out is not None:
            raise
        return f"not written: {file}: {error.strerror}"
    return f"written to {file}"


def _is_default(run: TrainedRun, protocol: Protocol) -> bool:
    """Whether an evaluation is that of Protocol(), by default or because equal values were asked for."""
    tasks, default_tasks = (held_out_tasks(run, asked) for asked in (protocol, Protocol()))
    return tasks == default_tasks and _inner_steps(run, protocol) == _inner_steps(run, Protocol())


def _inner_steps(run: TrainedRun, protocol: Protocol) -> int:
    return run.resolve_steps(protocol.steps, max(10, run.config.inner.steps))
