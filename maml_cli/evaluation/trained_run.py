"""Trained runs: checkpoints opened for evaluation, and the test tasks and inner steps to evaluate them with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from maml_cli.adaptation import Fitted, Learner, adapt_to_points
from maml_cli.config import Config, has_digest, locate_table, override
from maml_cli.core import MetaParams, map_tensors
from maml_cli.errors import CheckpointError, ConfigError
from maml_cli.evaluation.held_out import Protocol, TestTasks, sample_test_tasks
from maml_cli.experiment import Experiment, build_experiment, choose_device
from maml_cli.runs import Checkpoint, open_checkpoint

TEST_KEYS = (
    "inner.alpha.after_last_step",
    "inner.alpha.scale",
    "inner.momentum",
    "inner.clip_norm",
    "inner.clip_value",
)
"""Keys of the inner loop that a trained run may be evaluated with other values of."""


class TrainedRun(NamedTuple):
    """A checkpoint ready to compute with.

    checkpoint: as read from disk, with the config of training.
    config: that config with the overrides of this evaluation.
    experiment: the functions and the family of `config`.
    meta_params: of all runs trained side by side, diverged runs included.
    name: of the run directory or the file, for tables.
    overrides: of this evaluation, such as `tasks.phase=[0,1]`.
    """

    checkpoint: Checkpoint
    config: Config
    experiment: Experiment
    meta_params: MetaParams
    name: str
    overrides: tuple[str, ...] = ()

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

    def adapt(self, x: Any, y: Any, *, steps: int | None = None, task: Any = None) -> Fitted:
        """The learner adapted to support points of the user's own: `run.adapt(x, y).predict(x_new)`.

        x, y: points of one task, (K,) or (K, 1); of B tasks, (B, K), (B, K, 1) or a list of B arrays of any sizes; as
            lists, numpy arrays or tensors. Predictions are of the kind of their inputs.
        steps: inner steps; by default those of training.
        task: the label of the task of each point, for points (K,) of many tasks.

        With several seeds, predictions are the mean over those that have not diverged. Raises DataError for points that
        are not finite numbers or do not fit together, ConfigError for more inner steps than have alphas, and for an
        oracle network, which needs the parameters of a task.

        >>> import maml_cli as maml
        >>> fitted = maml.load("best-5shot").adapt([-4.0, -2.0, 0.0, 2.0, 4.0], [0.0, 1.8, 0.0, -1.8, 0.0])
        >>> len(fitted.predict([-1.0, 1.0])), len(fitted.steps([-1.0, 1.0]))  # after 0, 1, ..., 5 inner steps
        (2, 6)
        """
        return adapt_to_points(self.learner, x, y, steps=self.resolve_steps(steps, self.config.inner.steps), task=task)

    @property
    def learner(self) -> Learner:
        """The learner of points without a known function, of the seeds that have not diverged; raises ConfigError for
        an oracle network."""
        if self.config.model.oracle:
            raise ConfigError(
                f"{self.checkpoint.label}: an oracle network needs amplitude, frequency and phase of each task, which "
                f"points do not tell; take a run with model.oracle: false"
            )
        indices = torch.tensor([*self.run_index.values()])
        return Learner(self.experiment, map_tensors(lambda value: value[indices], self.meta_params))

    @property
    def measure(self) -> str:
        """Primary error: `mae` if trained on L1, else `mse`."""
        return self.config.measure


def open_run(path: Path, *, overrides: Sequence[str] = (), device: str | None = None) -> TrainedRun:
    """Open the run or checkpoint at `path`; `overrides` may change its tasks and the keys in TEST_KEYS.

    Raises ConfigError for other overrides, and FileError or CheckpointError if nothing can be opened.
    """
    checkpoint = open_checkpoint(path)
    for text in overrides:
        if not text.strip().startswith(("tasks.", *TEST_KEYS)):
            raise ConfigError(
                f"--set {text}: a trained run takes other tasks, such as tasks.phase=[0,1], and another "
                f"{', '.join(TEST_KEYS[:-1])} or {TEST_KEYS[-1]}, but nothing else"
            )
        if text.strip().startswith(("tasks.num_query", "tasks.query_sampling")):
            raise ConfigError(f"--set {text}: has no effect: a test task has as many fresh points as support points")
    # Not the device of training: a run moves between machines, and its engine may not.
    changes, task_changes = _table_changes(checkpoint, overrides)
    changes = [*changes, "run.engine=auto", f"run.device={device or 'auto'}"]
    config = override(checkpoint.config, changes, label=str(checkpoint.file))
    config = locate_table(config, checkpoint.run or checkpoint.file.parent)
    experiment = build_experiment(config, choose_device(config).device)
    try:
        meta_params = experiment.load_meta_params(checkpoint.contents["meta_params"])
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.file}: {error}; take another checkpoint") from None
    name = str(path) if path.is_file() else checkpoint.label
    return TrainedRun(checkpoint, config, experiment, meta_params, name, tuple(task_changes))


def _table_changes(checkpoint: Checkpoint, overrides: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """`overrides` with the changes that go with another table of curves, and those of them that change the test tasks.

    The table of the training at another path has the same curves and the same split, and changes nothing. Raises
    ConfigError for overrides that would mix up test and training curves of one table.
    """
    measured = checkpoint.config.tasks.data.measured
    if measured is None:
        return overrides, overrides
    keys = [text.partition("=")[0].strip() for text in overrides]
    files = [text for text, key in zip(overrides, keys, strict=True) if key == "tasks.file"]
    config = override(checkpoint.config, files, label=str(checkpoint.file))
    is_other = bool(files) and not has_digest(Path(config.tasks.file or ""), measured.digest)
    for text, key in zip(overrides, keys, strict=True):
        if key.startswith(("tasks.data.normalise", "tasks.data.measured")):
            raise ConfigError(f"--set {text}: the normalisation is that of the training curves, and stays")
        if key.startswith("tasks.data") and not is_other:
            raise ConfigError(
                f"--set {text}: the test curves are those of the training; give another tasks.file as well"
            )
    if is_other:
        return ["tasks.data.measured.digest=null", *overrides], overrides
    return overrides, [text for text in overrides if text not in files]


def held_out_tasks(run: TrainedRun, protocol: Protocol) -> list[TestTasks]:
    """The test tasks of `protocol` for each K, by default the K of training; of a range, its smallest and its
    largest."""
    return [
        sample_test_tasks(run.experiment.family, protocol, num_shots)
        for num_shots in protocol.shots or run.config.tasks.trained_shots
    ]


def last_inner_step(run: TrainedRun, protocol: Protocol) -> int:
    """The inner step up to which `protocol` evaluates `run`."""
    return run.resolve_steps(protocol.steps, max(10, run.config.inner.steps))
