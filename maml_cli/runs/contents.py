"""The schema of the contents of checkpoints: kinds, and sizes and values that follow from the config inside.

Shapes of tensors that only an experiment knows are compared by `check_tensors`, before anything computes with them.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from maml_cli.config import Config, from_dict, to_dict
from maml_cli.errors import CheckpointError, ConfigError

TRAINING_ONLY = ("optimizers", "generators", "noise_generators")
"""The contents that a checkpoint for evaluation alone lacks."""

MAX_MESSAGE = 300
"""Length limit of an error message about contents, which may be anything."""


def _as_config(value: Any) -> Config:
    """The config of plain values; unknown keys are refused at once, without a hint for each of thousands."""
    try:
        _check_keys(value, to_dict(Config()))
        return from_dict(value, label="config in the checkpoint")
    except ConfigError as error:
        problem, *more = str(error).splitlines()
        text = problem + (f"; and {len(more)} more" if more else "")
        raise PydanticCustomError("config", "{text}", {"text": f"invalid config: {text}"}) from None


def _check_keys(value: Any, known: dict[str, Any]) -> None:
    """Raises ConfigError unless the sections and keys of `value` are among `known`."""
    if not isinstance(value, dict) or not value.keys() <= known.keys():
        raise ConfigError("a section that is not a mapping of its keys")
    for key, section in known.items():
        if isinstance(section, dict) and key in value:
            _check_keys(value[key], section)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)


class MetaParamsSection(_Section):
    """The MetaParams of R runs, (R, ...)."""

    params: dict[str, Tensor]
    rule_params: dict[str, Tensor]


class Versions(_Section):
    """Versions of the programs that wrote a checkpoint."""

    maml: str
    torch: str


class Contents(_Section):
    """The contents of a checkpoint of R runs, one for each seed of its config.

    step: outer steps taken.
    config: of the training.
    meta_params: tensors by name, finite in runs that have not diverged.
    optimizers: state of each outer optimiser: group -> key of the learned tensor -> torch.optim's name -> tensor.
    generators, noise_generators: states of the random generators, (R, size); the latter (0, size) without weight noise.
    loss_sum, skipped_tasks: sums since the last line of metrics.jsonl, (R,).
    diverged: the outer step at which each run diverged, 0 for active runs, (R,).
    """

    schema_version: int
    step: int = Field(ge=0)
    config: Annotated[Config, BeforeValidator(_as_config)]
    meta_params: MetaParamsSection
    optimizers: dict[str, dict[str, dict[str, Tensor]]] | None = None
    generators: Tensor | None = None
    noise_generators: Tensor | None = None
    loss_sum: Tensor
    skipped_tasks: Tensor
    diverged: Tensor
    versions: Versions

    @model_validator(mode="after")
    def _fits_its_config(self) -> "Contents":
        try:
            self._check()
        except CheckpointError as error:
            raise PydanticCustomError("contents", "{text}", {"text": str(error)}) from None
        return self

    def _check(self) -> None:
        """Raises CheckpointError unless sizes and values are possible for the config after `step` outer steps."""
        num_runs, outer = len(self.config.seeds), self.config.outer
        if self.step > outer.steps:
            raise CheckpointError(f"step is {self.step:,}, more than the {outer.steps:,} outer steps of its config")
        sums = {name: getattr(self, name) for name in ("loss_sum", "skipped_tasks", "diverged")}
        counts = torch.empty(num_runs, dtype=torch.int64, device="meta")
        check_tensors(sums, {"loss_sum": counts.double(), "skipped_tasks": counts, "diverged": counts}, "")
        _check_range("skipped_tasks", self.skipped_tasks, self.step * outer.tasks_per_step)
        _check_range("diverged", self.diverged, self.step)
        if self.diverged.all():
            raise CheckpointError("diverged has no active run: a training would have stopped before it saved")
        training_only = [getattr(self, name) is not None for name in TRAINING_ONLY]
        if any(training_only) != all(training_only):
            raise CheckpointError(f"some of {', '.join(TRAINING_ONLY)} are missing")
        if self.generators is not None and self.noise_generators is not None:
            size = torch.Generator().get_state().numel()
            states = torch.empty(num_runs, size, dtype=torch.uint8, device="meta")
            expected = {"generators": states, "noise_generators": states if outer.weight_noise else states[:0]}
            check_tensors({name: getattr(self, name) for name in expected}, expected, "")
        for name, tensors in (("params", self.meta_params.params), ("rule_params", self.meta_params.rule_params)):
            for key, tensor in tensors.items():
                if tensor.dim() == 0 or len(tensor) != num_runs:
                    raise CheckpointError(
                        f"meta_params.{name}.{key} is {tuple(tensor.shape)}, its config has {num_runs} seeds"
                    )
            check_finite(tensors, self.diverged, f"meta_params.{name}")


def validate(contents: dict[str, Any]) -> Config:
    """The config of a checkpoint with `contents`; raises CheckpointError unless they have this schema."""
    try:
        return Contents.model_validate(contents).config
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        text = f"{key}: {first['msg']}" if key else first["msg"]
        text = "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_MESSAGE])
        raise CheckpointError(text) from None


def check_tensors(actual: Mapping[str, Any], expected: Mapping[str, Tensor], name: str) -> None:
    """Raises CheckpointError unless `actual` has tensors of the keys, shapes and dtypes of `expected`.

    They must be contiguous, on the CPU and without a graph; `expected` may be on the device meta.
    `name`, for messages, is that of the dictionary, or empty. Keys of `actual` are not repeated: they may be anything.
    """
    prefix = name and f"{name}."
    if actual.keys() != expected.keys():
        missing = ", ".join(sorted(expected.keys() - actual.keys()))
        problem = f"lacks {missing}" if missing else "has tensors that its config does not need"
        raise CheckpointError(f"{name} {problem}")
    for key, like in expected.items():
        tensor = actual[key]
        if type(tensor) is not Tensor or (tensor.dtype, tensor.shape) != (like.dtype, like.shape):
            kind = f"{tensor.dtype} {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise CheckpointError(
                f"{prefix}{key} is {kind}, its config needs {like.dtype} {tuple(like.shape)}".replace("torch.", "")
            )
        if not (tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.is_contiguous()):
            raise CheckpointError(f"{prefix}{key} is not a contiguous tensor on the CPU")
        if tensor.requires_grad or tensor.is_conj() or tensor.is_neg():
            raise CheckpointError(f"{prefix}{key} is not a plain tensor")


def check_finite(tensors: Mapping[str, Tensor], diverged: Tensor, name: str, *, least: float = -math.inf) -> None:
    """Raises CheckpointError unless the values, (R, ...), of active runs are finite and at least `least`.

    `diverged` (R,) is 0 for active runs; values of the others may be anything. No memory of their size is allocated.
    """
    active = diverged == 0
    for key, tensor in tensors.items():
        if tensor.numel() and active.any():
            lows, highs = tensor.reshape(len(active), -1).aminmax(dim=1)  # both are NaN if any value is
            low, high = lows[active].min().item(), highs[active].max().item()
            if not (math.isfinite(low) and math.isfinite(high) and low >= least):
                raise CheckpointError(f"{name}.{key} has values from {low:g} to {high:g}, which no training saves")


def _check_range(name: str, values: Tensor, highest: int) -> None:
    if int(values.min()) < 0 or int(values.max()) > highest:
        raise CheckpointError(
            f"{name} has values from {int(values.min()):,} to {int(values.max()):,}, not 0 to {highest:,}"
        )
