"""Trained runs: checkpoints opened for evaluation, and the test tasks and inner steps to evaluate them with."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maml_cli import runtime
from maml_cli.config import Config, override
from maml_cli.core import MetaParams
from maml_cli.errors import CheckpointError, ConfigError
from maml_cli.evaluation.held_out import Protocol, TestTasks, sample_test_tasks
from maml_cli.experiment import Experiment, build_experiment, choose_device
from maml_cli.runs import Checkpoint, open_checkpoint


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
        diverged = self.checkpoint.contents["diverged"].tolist()
        indices = {seed: index for index, seed in enumerate(self.checkpoint.config.seeds)}
        return {seed: index for seed, index in indices.items() if not diverged[index]} or indices

    @property
    def first_index(self) -> int:
        """Index on the run axis of the first seed that has not diverged."""
        return next(iter(self.run_index.values()))

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
    # Not the device of training: a run moves between machines, and its engine may not.
    changes = [*overrides, "run.engine=auto", f"run.device={device or 'auto'}"]
    config = override(checkpoint.config, changes, label=str(checkpoint.file))
    # More threads than free cores wait for one another: ten times slower than one thread on a busy machine.
    runtime.set_threads(config.run.threads)
    runtime.keep_freed_memory()
    experiment = build_experiment(config, choose_device(config).device)
    try:
        meta_params = experiment.load_meta_params(checkpoint.contents["meta_params"])
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.file}: {error}; take another checkpoint") from None
    name = checkpoint.label if path.is_dir() else str(path)
    return TrainedRun(checkpoint, config, experiment, meta_params, name)


def held_out_tasks(run: TrainedRun, protocol: Protocol) -> list[TestTasks]:
    """The test tasks of `protocol` for each K, by default the K of training."""
    return [
        sample_test_tasks(run.experiment.family, protocol, num_shots)
        for num_shots in protocol.shots or (run.config.tasks.num_support,)
    ]


def last_inner_step(run: TrainedRun, protocol: Protocol) -> int:
    """The inner step up to which `protocol` evaluates `run`."""
    return run.resolve_steps(protocol.steps, max(10, run.config.inner.steps))
