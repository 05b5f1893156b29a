"""A trained run put to the test: its checkpoint opened, other tasks or settings applied, the result written down."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from maml_cli import runtime
from maml_cli.config import Config, override
from maml_cli.core import MetaParams, Points, expand_to_tasks, select_run
from maml_cli.errors import CheckpointError, ConfigError
from maml_cli.evaluation.evaluate import Evaluation, Protocol, evaluate, sample_test_tasks
from maml_cli.experiment import Experiment, build_experiment, choose_device
from maml_cli.runs import Checkpoint, open_checkpoint, write_atomic


class TrainedRun(NamedTuple):
    """A checkpoint ready to compute with; `config` has the overrides of this assessment, `name` is for tables."""

    checkpoint: Checkpoint
    config: Config
    experiment: Experiment
    meta_params: MetaParams
    name: str

    @property
    def title(self) -> str:
        """The run, or the file where it stands alone, and how far it is trained."""
        of = self.checkpoint.config.outer.steps
        return f"{self.checkpoint.label} at outer step {self.checkpoint.step:,} of {of:,}"

    @property
    def max_steps(self) -> int | None:
        """How many inner steps there are alphas for, if they end."""
        inner = self.config.inner
        return inner.steps if inner.has_per_step_params and inner.alpha.after_last_step is None else None

    def resolve_steps(self, steps: int | None, default: int) -> int:
        """`steps`, or else as near to `default` as there are alphas for; raises ConfigError if `steps` are too many."""
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
        """The place of each seed that was trained to here; of those that diverged, if all did, too."""
        diverged = self.checkpoint.contents.get("diverged", torch.zeros(1)).tolist()
        places = {seed: place for place, seed in enumerate(self.checkpoint.config.seeds)}
        return {seed: place for seed, place in places.items() if not diverged[place]} or places

    @property
    def measure(self) -> str:
        """The error to look at first: the mean absolute one for a learner of it, else the mean squared one."""
        return "mae" if self.config.inner.loss == "l1" else "mse"


class TaskFit(NamedTuple):
    """Predictions for one task: its support points, the truth on a fine grid and the network's values after each step.

    x, truth: (points,); predictions: (steps + 1, points); support_x, support_y: (K,).
    """

    x: torch.Tensor
    truth: torch.Tensor
    predictions: torch.Tensor
    support_x: torch.Tensor
    support_y: torch.Tensor


def open_run(path: Path, *, overrides: Sequence[str] = (), device: str | None = None) -> TrainedRun:
    """Open the run or checkpoint at `path`; `overrides` give it other tasks, or another end of its alphas.

    Sets the number of threads of this process to that of the run.
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
    # Not the device it was trained on: a run moves between machines.
    changes = [*overrides, f"run.device={device or 'auto'}"]
    config = override(checkpoint.config, changes, label=str(checkpoint.file))
    # More threads than free cores wait for one another: on a busy machine, ten times as long as one thread.
    runtime.set_threads(config.run.threads)
    runtime.keep_freed_memory()
    experiment = build_experiment(config, choose_device(config).device)
    try:
        meta = experiment.load_meta_params(checkpoint.contents["meta_params"])
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.file}: {error}") from None
    name = checkpoint.label if path.is_dir() else str(path)
    return TrainedRun(checkpoint, config, experiment, meta, name)


def evaluate_run(run: TrainedRun, protocol: Protocol) -> list[Evaluation]:
    """One evaluation of `run` for each K of `protocol`, after every inner step."""
    steps = run.resolve_steps(protocol.steps, max(10, run.config.inner.steps))
    return [
        evaluate(
            run.experiment,
            run.meta_params,
            num_shots=num_shots,
            num_tasks=protocol.num_tasks,
            seed=protocol.seed,
            steps=steps,
            trained_steps=run.config.trained_steps,
            runs=run.run_index,
        )
        for num_shots in protocol.shots or (run.config.tasks.num_support,)
    ]


@torch.no_grad()
def fit_tasks(run: TrainedRun, protocol: Protocol, *, num_points: int = 301) -> list[TaskFit]:
    """Fits to the first `protocol.num_tasks` functions of the test tasks, after 0, 1, ..., S inner steps.

    S is `protocol.steps`, by default the trained number; K is the first of `protocol.shots`, by default the trained K.
    The support points are drawn for that many tasks alone.
    """
    experiment = run.experiment
    steps = run.resolve_steps(protocol.steps, run.config.inner.steps)
    (num_shots, *_) = protocol.shots or (run.config.tasks.num_support,)
    num_tasks = protocol.num_tasks
    tasks = sample_test_tasks(
        experiment.family, seed=protocol.seed, purpose="test", num_tasks=num_tasks, num_shots=num_shots
    )
    x = torch.linspace(*experiment.family.x, num_points, dtype=torch.float64)
    grid = x.reshape(num_points, 1).expand(1, num_tasks, num_points, 1)
    inputs = [experiment.network_inputs(points, tasks.functions) for points in (tasks.support, Points(grid, grid))]
    support, on_grid = (Points(*(part.to(experiment.device, experiment.dtype) for part in points)) for points in inputs)
    first_run = select_run(run.meta_params, next(iter(run.run_index.values())))
    adapted = experiment.algorithm.unroll(expand_to_tasks(first_run, num_tasks), support, steps)
    predictions = torch.stack([experiment.predict(params, on_grid.x)[0, ..., 0] for params in adapted]).cpu().double()
    truth = tasks.functions(grid)[0, ..., 0]
    return [
        TaskFit(x, truth[i], predictions[:, i], tasks.support.x[0, i, :, 0], tasks.support.y[0, i, :, 0])
        for i in range(num_tasks)
    ]


def write_result(
    run: TrainedRun, document: str, protocol: Protocol, overrides: Sequence[str], out: Path | None = None
) -> str:
    """Write a result to `out`, or by default to `eval.json` of the run; the line to print about it."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, f"{document}\n".encode())
        return f"written to {out}"
    directory = run.checkpoint.run
    if directory is None:
        return "not written: the checkpoint is not in a run directory"
    try:
        write_atomic(directory / "eval.json", f"{document}\n".encode())
    except OSError as error:
        return f"not written: {directory / 'eval.json'}: {error.strerror}"
    return f"written to {directory / 'eval.json'}"
