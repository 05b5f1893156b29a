"""The typed schema of a config. Every field has a default: an empty file is Finn's 10-shot protocol.

The descriptions are the key table of configs/README.md; the bounds and types are the errors that a user sees.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from maml_cli.config import constraints
from maml_cli.config.field_types import PositiveSteps, Seeds, Sha256, SourcePath, StepsOrZero, Widths
from maml_cli.config.inner_schema import Inner, OptimizerName
from maml_cli.config.section import Section
from maml_cli.config.tasks_schema import Tasks

ActivationName = Literal["relu", "tanh", "silu", "gelu", "softplus", "sigmoid", "sin"]
InitName = Literal["lecun_normal", "he_normal", "glorot_uniform", "uniform", "torch", "truncated_normal"]


class Model(Section):
    """The network, a multilayer perceptron from x to y."""

    hidden: Widths = Field([40, 40], description="width of each hidden layer")
    activation: ActivationName = Field("relu", description="activation function after each hidden layer")
    init: InitName = Field(
        "lecun_normal",
        description="initial weights: scaled by fan-in (lecun_normal, he_normal; uniform: within +-1/sqrt(fan_in)), by "
        "fan-in and fan-out (glorot_uniform), as in torch.nn.Linear with its biases (torch), or with standard "
        "deviation 0.01 as in Finn's code (truncated_normal)",
    )
    init_gain: float = Field(1.0, gt=0, le=1e6, description="factor on the initial weights, not on the biases")
    num_context: int = Field(
        0, ge=0, le=8192, description="context inputs in addition to x, zero at the start of each task (CAVIA)"
    )
    context_learned: bool = Field(
        False,
        description="whether the values of the context inputs at the start of each task are learned, from zero: with "
        "inner.adapt: all, the bias transformation",
    )
    oracle: bool = Field(
        False, description="whether amplitude, frequency and phase of the task are three more inputs of the network"
    )


class Outer(Section):
    """The outer loop: each outer step is an optimiser step on the mean query loss of a batch of tasks."""

    steps: PositiveSteps = Field(70_000, description="outer steps of the training")
    tasks_per_step: int = Field(25, ge=1, le=1_000_000, description="tasks in each outer step (meta-batch size)")
    task_blocks: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="blocks of tasks, equal to within one task, whose meta-gradients are computed one after the other "
        "and added in order (gradient accumulation): less memory, and work for several processes; null: one block",
    )
    optimizer: OptimizerName = Field("adam", description="outer optimiser; momentum is SGD with momentum 0.9")
    lr: float = Field(1e-3, gt=0, description="outer learning rate")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="schedule of the outer learning rates; linear and cosine decay to 0 at the last step"
    )
    meta_gradient: Literal["query", "reptile", "joint"] = Field(
        "query",
        description="query: gradient of the query loss after adapting; reptile: theta minus adapted parameters; joint: "
        "gradient of the loss on all points, no adaptation",
    )
    multi_step_loss_until: StepsOrZero = Field(
        0,
        description="multi-step loss (MAML++): query losses after all inner steps count, equally at first; from this "
        "outer step on, only the last; 0: only the last",
    )
    weight_noise: float = Field(
        0.0, ge=0, le=1e6, description="standard deviation of uniform noise on the initial parameters in training"
    )
    clip_task_norm: float | None = Field(
        None,
        gt=0,
        description="largest norm of a task's meta-gradient: longer ones are scaled down, and tasks with a non-finite "
        "one are skipped; null: no clipping",
    )
    clip_norm: float | None = Field(
        None, gt=0, description="largest norm of the mean meta-gradient: longer ones are scaled down; null: no clipping"
    )


class Run(Section):
    """Seeds, device, engine, and the intervals between log lines, evaluations and checkpoints."""

    seed: int = Field(0, ge=0, lt=2**63, description="random seed of initial parameters and tasks")
    seeds: Seeds = Field(
        None,
        description="runs trained side by side: a list of their seeds, or their number, with seeds seed, seed + 1, "
        "...; null: one run",
    )
    side_by_side: bool = Field(
        True,
        description="whether the runs of several seeds are computed together; false: one run after the other, so that "
        "several processes can share them",
    )
    init_from: SourcePath = Field(
        None,
        description="trained run whose parameters are the initial ones, in place of model.init; null: none (`maml "
        "train --init` sets it)",
    )
    init_sha256: Sha256 = Field(
        None,
        description="digest of the parameters of run.init_from, which are refused if they have another; null: written "
        "when training starts",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto: an accelerator if outer steps are large enough to gain from it, else the CPU"
    )
    engine: Literal["auto", "native", "compiled", "eager", "reference"] = Field(
        "auto",
        description="computation of outer steps: C++ (native), torch.compile (compiled), PyTorch (eager), autograd "
        "through the unrolled inner loop (reference); auto: the fastest that supports the config and repays its "
        "compile time",
    )
    dtype: Literal["float32", "float64"] = Field("float32", description="floating-point type of parameters and points")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads; native divides seeds or tasks among them")
    log_every: PositiveSteps = Field(100, description="outer steps between lines of metrics.jsonl")
    eval_every: StepsOrZero = Field(1000, description="outer steps between evaluations; 0: none")
    eval_tasks: int = Field(500, ge=2, le=1_000_000, description="held-out tasks of each evaluation during training")
    checkpoint_every: PositiveSteps = Field(
        1000, description="outer steps between checkpoints; the last step always has one"
    )
    tensorboard: bool = Field(
        False,
        description="whether training writes losses, validation errors, learned alphas and fits for TensorBoard too, "
        "into `tensorboard/` of the run; needs the extra `tensorboard`",
    )


class Config(Section):
    """The config of an experiment."""

    tasks: Tasks = Field(Tasks(), description="distribution of tasks")
    model: Model = Field(Model(), description="network")
    inner: Inner = Field(Inner(), description="inner loop")
    outer: Outer = Field(Outer(), description="outer loop")
    run: Run = Field(Run(), description="seeds, device, engine and intervals")

    @model_validator(mode="after")
    def _has_no_violations(self) -> "Config":
        """Raises one error with every constraint that the config violates, in its context."""
        violations = constraints.violations(self)
        if violations:
            text = "; ".join(f"{constraint.key} {constraint.reason}" for constraint in violations)
            raise PydanticCustomError("violations", "{text}", {"text": text, "violations": violations})
        return self

    @classmethod
    def from_yaml(cls, source: "str | Path", *overrides: str) -> "Config":
        """The config in a YAML file, or of a preset, with `overrides` such as `inner.steps=5` applied in order.

        Raises ConfigError with every problem, and FileError if `source` cannot be read.

        >>> Config.from_yaml("finn-10shot", "inner.steps=5").inner.steps
        5
        """
        from maml_cli.config.load import load_config  # which imports this module

        return load_config(str(source), overrides).config

    @property
    def seeds(self) -> list[int]:
        """The seed of each run."""
        seed, seeds = self.run.seed, self.run.seeds
        return seeds if isinstance(seeds, list) else [seed + index for index in range(seeds or 1)]

    @property
    def trained_steps(self) -> int:
        """Inner steps in training: 0 in joint training, where only evaluation adapts."""
        return 0 if self.outer.meta_gradient == "joint" else self.inner.steps

    @property
    def measure(self) -> str:
        """Primary error: `mae` if trained on L1, else `mse`."""
        return "mae" if self.inner.loss == "l1" else "mse"
