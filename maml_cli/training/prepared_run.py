"""Run directories ready for a training: a new one, or one to resume in its state at the checkpoint; both are locked."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from maml_cli.errors import FileError
from maml_cli.messages import print_message
from maml_cli.runs import directory, metrics, new_run
from maml_cli.training.extension import extend_files
from maml_cli.training.plan import TrainPlan


@contextlib.contextmanager
def prepared_run(plan: TrainPlan) -> Iterator[Path]:
    """The run directory, locked: a new one, or that which is resumed, in its state at the checkpoint."""
    with _locked_run(plan) as run:
        if plan.resumed_run:
            _prepare_resume(run, plan)
        yield run


def _locked_run(plan: TrainPlan) -> AbstractContextManager[Path]:
    """The run directory, locked for the training: that which is resumed, or a new one."""
    if plan.resumed_run is None:
        return new_run(plan.out, name=plan.name, config=plan.config)
    directory.check_files(plan.resumed_run)
    return _locked(plan.resumed_run)


@contextlib.contextmanager
def _locked(run: Path) -> Iterator[Path]:
    with directory.training_lock(run):
        yield run


def _prepare_resume(run: Path, plan: TrainPlan) -> None:
    """Return the files of `run` to their state at the checkpoint, or at the start; report files that are missing."""
    config, checkpoint = plan.config, plan.checkpoint
    step = checkpoint.step if checkpoint else 0
    for warning in plan.warnings:
        print_message(warning)
    if plan.extension and checkpoint:
        (run / "config.yaml").unlink(missing_ok=True)  # until it is written, the config is that of the checkpoint
    (run / "checkpoints").mkdir(exist_ok=True)
    directory.truncate_to(checkpoint, run)
    if plan.extension:
        extend_files(run, plan.extension)
    if plan.extension or not (run / "config.yaml").exists():
        directory.write_config(run, config)
    num_missing = 0
    with contextlib.suppress(FileError):  # a log too large to be read is not counted
        num_missing = step // config.run.log_every - metrics.count_losses(run)
    if num_missing > 0:
        print_message(
            f"{run / metrics.METRICS}: {num_missing} log lines before step {step:,} are missing and cannot be restored"
        )
