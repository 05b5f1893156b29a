"""Documents of trainings and of run directories: of `maml train`, `maml runs`, `maml sweep show`, and their logs."""

from typing import Literal

from pydantic import Field, JsonValue, RootModel

from maml_cli.documents.shape import Document, Number, Shape


class PlanDocument(Document):
    """The plan of a training, of which nothing is written yet."""

    run: str = Field(description="path of the run directory that would be created or resumed")
    step: int = Field(ge=0, description="outer steps of the checkpoint to resume; 0 for a new run")
    device: str = Field(description="device of the training: cpu, cuda or mps")
    engine: str = Field(description="engine of the training: native, compiled, eager or reference")
    config: dict[str, JsonValue] = Field(description="all keys of the config, by the schema of maml config schema")


class TrainDocument(Document):
    """A training that has ended or was interrupted."""

    run: str = Field(description="path of the run directory")
    checkpoint: str = Field(description="path of the newest checkpoint")
    step: int = Field(ge=0, description="outer steps taken in all")
    seconds: float = Field(ge=0, description="duration of the training in this process, in seconds")
    outer_steps_per_second: float = Field(ge=0, description="rate of this process; 0 if it took no outer step")
    tasks_per_second: float = Field(ge=0, description="tasks of all seeds for each second of this process")
    device: str = Field(description="device of the training: cpu, cuda or mps")
    engine: str = Field(description="engine of the training: native, compiled, eager or reference")
    interrupted: bool = Field(description="whether it stopped before the last outer step of the config")
    seeds: list[int] = Field(description="seeds of the runs trained side by side")
    diverged: dict[str, int] = Field(description="outer step at which each diverged seed was frozen, by seed")


class RunRow(Shape):
    """A run directory at a glance."""

    name: str = Field(description="name of the directory")
    path: str = Field(description="path of the directory")
    preset: str | None = Field(
        description="preset of the name, else the closest one; null if the defaults are as close"
    )
    changes: dict[str, JsonValue] = Field(
        description="values by dotted key that differ from those of the preset, or else from the defaults"
    )
    state: Literal["done", "training", "interrupted", "diverged", "damaged"] = Field(
        description="training: a process has locked it; interrupted: before its last outer step; diverged: all its "
        "seeds; damaged: see problem"
    )
    step: int = Field(
        ge=0, description="outer steps saved; of a run in training, those in its log; of a diverged one, that at fault"
    )
    num_steps: int | None = Field(ge=0, description="planned outer steps; null without a readable config")
    error: Number = Field(
        description="error of the last evaluation in training, mean over the grid and the seeds that did not diverge: "
        "absolute if trained on L1, else squared; null without one"
    )
    engine: str | None = Field(description="engine of the last process that trained, or of the config; null if unknown")
    age_seconds: float = Field(ge=0, description="seconds since training last wrote to the directory")
    problem: str | None = Field(description="first problem of a damaged run; null for others")


class RunsDocument(Document):
    """The run directories of a directory."""

    runs: list[RunRow] = Field(description="one for each run directory, in the order of --sort")


class PrunedRun(Shape):
    """The old checkpoints of a run."""

    run: str = Field(description="path of the run directory")
    files: list[str] = Field(description="paths of the checkpoints, the oldest first")
    num_bytes: int = Field(ge=0, description="their size in bytes")
    num_left: int = Field(ge=0, description="number of checkpoints that stay")
    problem: str = Field(description="reason why none can be removed; empty if nothing prevents it")


class CleanDocument(Document):
    """Old checkpoints: those that can be removed, and those that were."""

    runs: list[PrunedRun] = Field(description="one for each run directory: its checkpoints that can be removed")
    removed: list[PrunedRun] = Field(description="the checkpoints that were removed, with --yes; else empty")


class Trial(Shape):
    """A trial of a sweep."""

    number: int = Field(ge=1, description="number of the trial, from 1")
    values: dict[str, JsonValue] = Field(description="value of each key that varies; empty until they are chosen")
    state: Literal["complete", "diverged", "pruned", "running", "stopped", "waiting", "failed"] = Field(
        description="complete: trained to the end; stopped: its process has ended before it; waiting: not begun"
    )
    error: Number = Field(
        description="mean over seeds of the last validation error; null before the first, and if a seed diverged"
    )
    ci95_seeds: Number = Field(
        description="half width of the 95 % interval over seeds; null for a single seed, and if a seed diverged"
    )
    errors: list[Number] = Field(description="last validation error of each seed; null for one that diverged")
    step: int = Field(ge=0, description="outer step of the error; 0 before the first")
    run: str = Field(description="path of its run directory")
    problem: str = Field(description="reason why it failed or diverged; empty for others")


class SweepDocument(Document):
    """The trials of a sweep, the best first."""

    directory: str = Field(description="path of the directory of the sweep")
    measure: str = Field(description="error of the trials: mae if trained on L1, else mse")
    keys: list[str] = Field(description="dotted keys of the config that vary")
    trials: list[Trial] = Field(description="those trained to the end by their error, then the others")


class MetricRow(Shape):
    """A number of the log of a training."""

    step: int = Field(ge=0, description="outer steps taken")
    seed: int = Field(ge=0, description="seed of the run")
    quantity: str = Field(
        description="loss, grad_norm or skipped_tasks; alpha or alpha_grad and a key, as in alpha.head; or an error on "
        "validation tasks: grid_mse, grid_mae, query_mse or query_mae"
    )
    inner_step: int | None = Field(
        ge=0, description="of an alpha the inner step from 0, of an error the inner steps before it; null for others"
    )
    value: Number = Field(description="the number; null for runs that diverged")


class MetricsDocument(Document):
    """The log of a training as a tidy table."""

    metrics: list[MetricRow] = Field(description="one for each outer step, seed and quantity")


ByRun = Number | list[Number]
"""The number of a single run, or the numbers of several; null for one that diverged."""
ByRunAndStep = list[Number] | list[list[Number] | None]
"""The numbers of a single run by inner step, or those of several runs; null for one that diverged."""
SEVERAL = "with several seeds a list, null for one that diverged"


class LossLine(Shape):
    """Training losses since the previous such line."""

    step: int = Field(ge=1, description="outer steps taken")
    loss: ByRun = Field(description=f"mean query loss over the outer steps since the previous line; {SEVERAL}")
    grad_norm: ByRun = Field(description=f"norm of the last meta-gradient before outer.clip_norm; {SEVERAL}")
    skipped_tasks: int | list[int | None] | None = Field(
        [],
        description=f"number of tasks skipped since the previous line; absent without outer.clip_task_norm; {SEVERAL}",
    )
    alpha: dict[str, ByRunAndStep] = Field(
        {}, description=f"mean alpha of each key by inner step; absent if alpha is fixed; {SEVERAL}"
    )
    alpha_grad: dict[str, ByRunAndStep] = Field(
        {}, description=f"mean of the last meta-gradient of each learned alpha, by inner step; {SEVERAL}"
    )


class ValidationErrors(Shape):
    """Mean errors on the validation tasks after 0, 1, ... inner steps."""

    shots: int = Field(ge=1, description="K, the number of support points of a task")
    num_tasks: int = Field(ge=1, description="number of validation tasks")
    grid_mse: ByRunAndStep = Field(description=f"mean squared error on the grid, by inner step; {SEVERAL}")
    grid_mae: ByRunAndStep = Field(description=f"mean absolute error on the grid, by inner step; {SEVERAL}")
    query_mse: ByRunAndStep = Field(description=f"mean squared error on fresh points, by inner step; {SEVERAL}")
    query_mae: ByRunAndStep = Field(description=f"mean absolute error on fresh points, by inner step; {SEVERAL}")


class EvaluationLine(Shape):
    """An evaluation in training."""

    step: int = Field(ge=0, description="outer steps taken")
    eval: ValidationErrors = Field(description="errors on the validation tasks")


class MetricsLine(RootModel[LossLine | EvaluationLine]):
    """A line of metrics.jsonl: training losses, or an evaluation."""


class StartLine(Shape):
    """A process that starts or resumes the training."""

    step: int = Field(ge=0, description="outer step from which it trains on")
    engine: str = Field(description="engine of the process: native, compiled, eager or reference")
    device: str = Field(description="device of the process: cpu, cuda or mps")
    maml: str = Field(description="version of maml")
    torch: str = Field(description="version of PyTorch with its build, such as 2.13.0+cpu")


class RateLine(Shape):
    """Time and rate of a process since its start."""

    step: int = Field(ge=0, description="outer steps taken in all")
    seconds: float = Field(ge=0, description="seconds since the start of this process")
    outer_steps_per_second: float = Field(ge=0, description="outer steps for each second of this process")


class DivergenceLine(Shape):
    """The end of a training of which all seeds diverged."""

    step: int = Field(ge=0, description="outer step in which they diverged")
    diverged: str = Field(description="name of the value that was not finite")


class TimingLine(RootModel[StartLine | RateLine | DivergenceLine]):
    """A line of timing.jsonl: a start, a rate, or a divergence."""
