"""Checkpoints of finite states: a state with a tensor that is not finite is never written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from maml_cli.config import Config
from maml_cli.engines import TrainState, finite_runs
from maml_cli.errors import DivergedError
from maml_cli.runs import save_checkpoint
from maml_cli.training.advice import divergence_advice


def check_initial_values(config: Config, state: TrainState) -> None:
    """Raise DivergedError, with advice, if an initial value of a run is not finite in the precision of the config."""
    finite = finite_runs(state).tolist()
    seeds = [str(seed) for seed, is_finite in zip(config.seeds, finite, strict=True) if not is_finite]
    if seeds:
        whose = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"
        message = f"the initial values of {whose} are not finite in {config.run.dtype}"
        error = DivergedError(message, outer_step=0, cause="update")
        raise DivergedError(
            message, divergence_advice(config, error), "nothing was saved", outer_step=0, cause="update"
        )


def save_finite(contents: dict[str, Any], run: Path, *, last: Path | None) -> Path:
    """Save a checkpoint; raises DivergedError, which names the `last` good one, if its contents are not finite."""
    step = contents["step"]
    if not all(tensor.isfinite().all() for tensor in _floating_tensors(contents)):
        saved = "nothing was saved" if last is None else f"the last good checkpoint is {last}"
        raise DivergedError(
            f"diverged before outer step {step + 1}: the state is not finite and is not saved",
            saved,
            outer_step=step,
            cause="update",
        )
    return save_checkpoint(run, step, contents)


def _floating_tensors(contents: Any) -> Iterator[Tensor]:
    """All floating-point tensors in nested dictionaries and lists."""
    if isinstance(contents, Tensor):
        if contents.is_floating_point():
            yield contents
    elif isinstance(contents, dict | list):
        for item in contents.values() if isinstance(contents, dict) else contents:
            yield from _floating_tensors(item)
