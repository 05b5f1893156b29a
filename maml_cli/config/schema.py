"""The typed schema of a config. Every field has a default, so an empty file is Finn's 10-shot protocol.

The descriptions here are the reference in the README; the constraints here are the errors that a user sees.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from maml_cli.config import constraints

SCHEMA_VERSION = 1
MAX_SEEDS = 1024


def _as_range(value: Any) -> Any:
    """A number x stands for [x, x]; anything but a number or two numbers, low first, is refused."""
    numbers = value if isinstance(value, list | tuple) else [value, value]
    if len(numbers) != 2 or not all(_is_finite(number) for number in numbers):
        raise PydanticCustomError("range", "must be a number or [low, high]")
    if numbers[0] > numbers[1]:
        raise PydanticCustomError("range", "must have its low end first")
    return tuple(float(number) for number in numbers)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _as_seeds(value: Any) -> Any:
    """A count, or seeds that differ; anything else is refused."""
    whole = [value] if not isinstance(value, list) else value
    if value is not None and not all(type(number) is int for number in whole):
        raise PydanticCustomError("seeds", "must be a whole number, or a list of seeds")
    if isinstance(value, int) and not 1 <= value <= MAX_SEEDS:
        raise PydanticCustomError("seeds", f"must be from 1 to {MAX_SEEDS:,}, or a list of seeds")
    if isinstance(value, list) and not all(0 <= number < 2**63 for number in value):
        raise PydanticCustomError("seeds", "must have seeds from 0 to 2^63 - 1")
    if isinstance(value, list) and not 1 <= len(set(value)) == len(value) <= MAX_SEEDS:
        raise PydanticCustomError("seeds", f"must have from 1 to {MAX_SEEDS:,} seeds that differ")
    return value


def _from_range(value: tuple[float, float]) -> float | list[float]:
    return value[0] if value[0] == value[1] else list(value)


NumberOrRange = Annotated[tuple[float, float], BeforeValidator(_as_range), PlainSerializer(_from_range)]
Width = Annotated[int, Field(ge=1, le=8192)]
ActivationName = Literal["relu", "tanh", "silu", "gelu", "softplus", "sigmoid", "sin"]
InitName = Literal["lecun_normal", "he_normal", "glorot_uniform", "uniform", "torch", "truncated_normal"]
OptimizerName = Literal["adam", "adamw", "rmsprop", "sgd", "momentum"]


class Section(BaseModel):
    """A part of a config: unknown keys are refused, types are strict, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Tasks(Section):
    """The family y = amplitude * sin(frequency * x - phase) + offset + noise, and the points seen of each task."""

    family: Literal["sine"] = Field("sine", description="distribution of functions")
    amplitude: NumberOrRange = Field((0.1, 5.0), description="amplitude, uniform on [low, high]; a number fixes it")
    frequency: NumberOrRange = Field((1.0, 1.0), description="angular frequency, in radians a unit of x")
    phase: NumberOrRange = Field((0.0, math.pi), description="phase in radians, subtracted: sin(frequency * x - phase)")
    offset: NumberOrRange = Field((0.0, 0.0), description="added to every target of the task")
    x: NumberOrRange = Field((-5.0, 5.0), description="range of the inputs, and of the 100-point evaluation grid")
    noise: float = Field(0.0, ge=0, description="standard deviation of Gaussian noise on the targets")
    num_support: int = Field(10, ge=1, le=100_000, description="K: points that a task adapts on")
    num_query: int = Field(10, ge=1, le=100_000, description="points that the adapted network is judged by in training")
    query_sampling: Literal["uniform", "stratified"] = Field(
        "uniform", description="where query points lie: anywhere, or one in each of num_query equal parts of the range"
    )


class Model(Section):
    """The network, a multilayer perceptron from x to y."""

    hidden: list[Width] = Field([40, 40], max_length=16, description="width of each hidden layer")
    activation: ActivationName = Field("relu", description="after each hidden layer")
    init: InitName = Field(
        "lecun_normal",
        description="of the weights: normal or uniform by fan-in (lecun, he, glorot; uniform is "
        "U(+-1/sqrt(fan_in))), torch.nn.Linear's (torch: biases too), or normal with deviation 0.01 (Finn's code)",
    )
    init_gain: float = Field(1.0, gt=0, le=1e6, description="factor on the initial weights, not on the biases")
    num_context: int = Field(
        0, ge=0, le=8192, description="more inputs, zero where each task starts: what CAVIA adapts"
    )
    oracle: bool = Field(
        False, description="whether the network is told amplitude, frequency and phase, as three more inputs"
    )


class Alpha(Section):
    """The inner learning rate."""

    init: float = Field(0.01, gt=0, description="where every alpha starts")
    learned: bool = Field(False, description="whether the outer loop learns it")
    per: Literal["scalar", "layer", "tensor", "parameter"] = Field(
        "scalar", description="one alpha for all, for each layer, tensor or parameter (Meta-SGD)"
    )
    per_step: bool = Field(False, description="whether each inner step has alphas of its own (with layer: LSLR)")
    after_last_step: Literal["hold", "decay", "stop"] | None = Field(
        None,
        description="after the last alpha of its own: it holds, halves at every step, or nothing moves any more; "
        "null: there are no more steps",
    )
    sign: Literal["free", "positive"] = Field(
        "free", description="a learned alpha may become negative, or stays positive: its logarithm is learned"
    )
    optimizer: OptimizerName | None = Field(None, description="the outer optimiser of alpha; null: outer.optimizer")
    lr: float | None = Field(None, gt=0, description="its outer learning rate; null: outer.lr")


class Inner(Section):
    """The inner loop: gradient descent on the support points of a task."""

    steps: int = Field(1, ge=1, le=1000, description="inner gradient steps in training")
    loss: Literal["mse", "l1", "huber"] = Field("mse", description="on the support and on the query points")
    adapt: Literal["all", "head", "body", "context"] = Field(
        "all",
        description="parameters that adapt: all, the last layer (ANIL), all but it (BOIL), or context inputs (CAVIA)",
    )
    optimizer: Literal["sgd", "adam"] = Field(
        "sgd", description="of the inner steps: the gradient, or Adam without momentum, as Reptile's; alpha is its rate"
    )
    curvature: Literal["none", "kronecker"] = Field(
        "none", description="learned matrices M_in G M_out around each gradient, from the identity (Meta-Curvature)"
    )
    curvature_per_step: bool = Field(False, description="whether each inner step has matrices of its own")
    proximal: float = Field(
        0.0, ge=0, description="lambda: the inner loss has lambda / 2 |phi - theta|^2 added, which implicit needs"
    )
    order: Literal["second", "first", "implicit"] = Field(
        "second",
        description="derivatives through the inner loop: second (MAML), first (FOMAML), or those of its minimum "
        "(implicit MAML)",
    )
    cg_steps: int = Field(5, ge=1, le=1000, description="steps of conjugate gradients, if order is implicit")
    first_order_until: int = Field(
        0, ge=0, le=99_999_999, description="outer steps that are first order before it goes second (MAML++)"
    )
    recompute_activations: bool = Field(
        False,
        description="whether what inner steps computed is computed again rather than kept: less memory, more time",
    )
    alpha: Alpha = Field(Alpha(), description="the inner learning rate")

    @property
    def has_per_step_params(self) -> bool:
        """Whether inner steps have something of their own, which ends with them."""
        return self.alpha.per_step or self.curvature_per_step


class Outer(Section):
    """The outer loop: one optimiser step on the mean query loss of a batch of tasks."""

    steps: int = Field(70_000, ge=1, le=99_999_999, description="outer steps of the whole training")
    tasks_per_step: int = Field(25, ge=1, le=1_000_000, description="tasks in each outer step, the meta-batch")
    optimizer: OptimizerName = Field("adam", description="outer optimiser; momentum is SGD with momentum 0.9")
    lr: float = Field(1e-3, gt=0, description="outer learning rate")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="of the outer learning rates; linear and cosine fall to 0 at the last step"
    )
    meta_gradient: Literal["query", "reptile", "joint"] = Field(
        "query",
        description="what is descended: the query loss after adapting, the way back from the adapted parameters "
        "(Reptile), or the loss on all points without adapting (joint training)",
    )
    multi_step_loss_until: int = Field(
        0,
        ge=0,
        le=99_999_999,
        description="outer steps in which the loss moves from all inner steps alike to the last (MAML++); 0: the last",
    )
    weight_noise: float = Field(
        0.0, ge=0, le=1e6, description="standard deviation of noise on the parameters, other in each outer step"
    )
    clip_task_norm: float | None = Field(
        None, gt=0, description="largest norm of each task's gradient; one that is not finite is left out; null: none"
    )
    clip_norm: float | None = Field(
        None,
        gt=0,
        description="largest norm of the whole meta-gradient, longer ones are scaled down; null: none",
    )


class Run(Section):
    """Where and how it runs, and what it keeps."""

    seed: int = Field(0, ge=0, lt=2**63, description="of everything random: initial parameters and tasks")
    seeds: Annotated[int | list[int] | None, BeforeValidator(_as_seeds)] = Field(
        None,
        description="independent runs trained side by side: how many, with seeds seed, seed + 1, ..., or a list of "
        "their seeds; null: one",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto takes an accelerator only for work that is large enough to gain from one"
    )
    engine: Literal["auto", "native", "compiled", "eager", "reference"] = Field(
        "auto", description="how outer steps are computed; auto takes the fastest that can do it, if compiling it pays"
    )
    dtype: Literal["float32", "float64"] = Field("float32", description="of parameters and points")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads; native shares out seeds or tasks to them")
    log_every: int = Field(100, ge=1, le=99_999_999, description="outer steps between lines of metrics.jsonl")
    eval_every: int = Field(
        1000, ge=0, le=99_999_999, description="outer steps between evaluations in training; 0: none"
    )
    eval_tasks: int = Field(500, ge=2, le=1_000_000, description="validation tasks of those evaluations")
    checkpoint_every: int = Field(
        1000, ge=1, le=99_999_999, description="outer steps between checkpoints; the last always"
    )


class Config(Section):
    """A whole experiment."""

    tasks: Tasks = Field(Tasks(), description="the task family")
    model: Model = Field(Model(), description="the network")
    inner: Inner = Field(Inner(), description="the inner loop")
    outer: Outer = Field(Outer(), description="the outer loop")
    run: Run = Field(Run(), description="seed, device, threads and what is kept")

    @model_validator(mode="after")
    def _makes_sense(self, info: ValidationInfo) -> "Config":
        """Combinations that make no sense are put into the context, if that is a list, or else the first is raised."""
        for key, reason in constraints.violations(self):
            if isinstance(info.context, list):
                info.context.append((key, reason))
            else:
                raise PydanticCustomError(f"at:{key}", reason)
        return self

    @property
    def seeds(self) -> list[int]:
        """The seed of each run that is trained."""
        seed, seeds = self.run.seed, self.run.seeds
        return seeds if isinstance(seeds, list) else [seed + place for place in range(seeds or 1)]

    @property
    def trained_steps(self) -> int:
        """The inner steps that training takes: none in joint training, where only evaluation adapts."""
        return 0 if self.outer.meta_gradient == "joint" else self.inner.steps
