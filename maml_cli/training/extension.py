"""Extensions: a resumed run with another number of outer steps, which ends with the bytes of a run planned with it.

The last planned outer step writes a log line, an evaluation and a checkpoint even where they are not due by their
intervals. A log line starts new sums of losses, which are in every checkpoint: after one that was not due, the bytes of
all later checkpoints and log lines would differ, so that an earlier checkpoint is resumed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from maml_cli.config import Config, override
from maml_cli.engines import choose_engine
from maml_cli.errors import CheckpointError, ConfigError, FileError
from maml_cli.runs import Checkpoint, checkpoint_files, directory, metrics, open_checkpoint, replace_config

KEY = "outer.steps"
"""The key that a resumed run takes another value of."""


class Extension(NamedTuple):
    """Another number of outer steps of a run that is resumed.

    config: with the new number.
    previous: the config before.
    checkpoint: the checkpoint to resume; None for a run that has none yet, and starts again.
    summary: both numbers, and the outer steps that are taken again.
    """

    config: Config
    previous: Config
    checkpoint: Checkpoint | None
    summary: str


def plan_extension(
    run: Path, config: Config, checkpoint: Checkpoint | None, overrides: Sequence[str], device: torch.device
) -> Extension | None:
    """The extension of `run`, which has `config` and would be resumed from `checkpoint`, by `overrides` of outer.steps;
    None if they change nothing. Raises ConfigError for other overrides, and where a run that was planned with the new
    number would have other bytes."""
    for text in overrides:
        if text.partition("=")[0].strip() != KEY:
            raise ConfigError(f"--set {text}: a resumed run keeps its config; it takes nothing but more {KEY}")
    changed = override(config, overrides, label=str(run))
    old, new = config.outer.steps, changed.outer.steps
    steps = [int(file.stem.removeprefix("step-")) for file in checkpoint_files(run)]
    taken = max([*steps, checkpoint.step if checkpoint else 0])
    if new <= taken:
        raise ConfigError(f"--set {KEY}={new}: {run} has taken {taken:,} outer steps; give more")
    if changed == config:
        return None
    _check_extensible(run, config, changed, device)
    summary = f"{new:,} outer steps in place of {old:,}"
    if checkpoint and checkpoint.step == old and old % config.run.log_every:
        checkpoint = _newest_before(run, old, config)
        summary += (
            f"; those after {checkpoint.step:,} are taken again, as the log line after {old:,} is not one of every "
            f"{config.run.log_every:,}"
        )
    return Extension(changed, config, checkpoint, summary)


def extend_files(run: Path, extension: Extension) -> None:
    """Give `run`, which has been truncated to the checkpoint of `extension`, the files of a run planned with its number
    of outer steps, but for config.yaml; a kill at any moment leaves a run that can be resumed, or extended again."""
    checkpoint, last = extension.checkpoint, extension.previous.outer.steps
    if checkpoint is None:
        return
    every = extension.config.run.eval_every
    if checkpoint.step == last and every and last % every:
        metrics.remove_evaluation(run, last)
    replace_config(run, checkpoint, previous=extension.previous, config=extension.config)


def remove_extra_checkpoint(run: Path, extension: Extension, step: int) -> None:
    """Remove the checkpoint of the former last outer step if it is not due, and `step` outer steps have a later one."""
    last = extension.previous.outer.steps
    if step > last and last % extension.config.run.checkpoint_every:
        directory.remove_checkpoint(directory.checkpoint_file(run, last))


def _check_extensible(run: Path, config: Config, changed: Config, device: torch.device) -> None:
    """Raises ConfigError if the outer steps that were taken depend on the number of those that were planned."""
    new, advice = changed.outer.steps, f"train a new run with {KEY}={changed.outer.steps}"
    if config.outer.schedule != "constant":
        raise ConfigError(
            f"--set {KEY}={new}: outer.schedule of {run} is {config.outer.schedule}: its learning rates depend on the "
            f"planned number of outer steps; {advice}"
        )
    engines = [choose_engine(planned, device).name for planned in (config, changed)]
    if engines[0] != engines[1]:
        raise ConfigError(
            f"--set {KEY}={new}: run.engine of {run} is auto, which takes {engines[0]} for {config.outer.steps:,} "
            f"outer steps and {engines[1]} for {new:,}, with other rounding errors; {advice}"
        )


def _newest_before(run: Path, step: int, config: Config) -> Checkpoint:
    """The newest good checkpoint of `run` with `config` before outer step `step`; raises ConfigError without one."""
    for file in checkpoint_files(run):
        try:
            checkpoint = open_checkpoint(file)
        except (CheckpointError, FileError):
            continue
        if checkpoint.step < step and checkpoint.config == config:
            return checkpoint
    raise ConfigError(
        f"{run}: no good checkpoint before outer step {step:,}, whose log line is not one of every "
        f"{config.run.log_every:,}; train a new run with more {KEY}"
    )
