"""The records of a training on disk: log lines, evaluations and checkpoints of all groups of runs, in one directory.

Each process computes the records of its own runs; the leader joins and writes them.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from maml_cli.config import Config, to_dict
from maml_cli.engines import StepResult
from maml_cli.evaluation import OnTasks, ignore_tasks
from maml_cli.messages import print_message, quoted
from maml_cli.runs import EvaluationRecord, LossRecord, directory, metrics, save_checkpoint, timing
from maml_cli.training.processes import ONE_PROCESS, Processes
from maml_cli.training.records import concat_records, evaluation_record, loss_record
from maml_cli.training.run_groups import RunGroup, concat_runs, map_contents
from maml_cli.training.saving import save_finite
from maml_cli.training.snapshot import snapshot

T = TypeVar("T")


class Observer(NamedTuple):
    """Functions that the leader calls with the records of a training, once these are in the run directory.

    on_losses: with the losses since the previous record, and the outer steps per second.
    on_evaluation: with validation errors, and the contents of a checkpoint at their outer step; called where
        `run.tensorboard` is true.
    """

    on_losses: Callable[[LossRecord, float], None] = lambda record, rate: None
    on_evaluation: Callable[[EvaluationRecord, Mapping[str, Any]], None] = lambda record, contents: None


Observe = Callable[[Config, Path, int | None], AbstractContextManager[Observer]]
"""(config, run directory, outer step of the checkpoint that is resumed, None for a start) -> the observer of a
training, for as long as it lasts."""


def observe_nothing(config: Config, run: Path, step: int | None) -> AbstractContextManager[Observer]:
    """An observer without effect."""
    return nullcontext(Observer())


class Hooks(NamedTuple):
    """Functions that a training calls.

    on_step: after each call of the engine, with the outer steps taken and the mean query loss.
    on_tasks: after each chunk of tasks of an evaluation.
    interrupted: the number of the signal that asks training to save and stop, 0 for none; asked after each of these.
    abandonable: (rescue, is_saved) -> a context for a call that may take long; see Stop.abandonable.
    observer: of the records.
    """

    on_step: Callable[[int, float], None] = lambda step, loss: None
    on_tasks: OnTasks = ignore_tasks
    interrupted: Callable[[], int] = lambda: 0
    abandonable: Callable[..., AbstractContextManager[None]] = lambda rescue, is_saved=True: nullcontext()
    observer: Observer = Observer()


class _EvaluationStopped(Exception):
    """A signal, its only argument, asked for a stop while an evaluation was computed."""


class Recorder(NamedTuple):
    """The owner of a run directory in training.

    config: of all runs.
    groups: those that this process trains.
    run: the run directory.
    processes: those that share the training.
    hooks: functions called in evaluations.
    """

    config: Config
    groups: Sequence[RunGroup]
    run: Path
    processes: Processes = ONE_PROCESS
    hooks: Hooks = Hooks()

    def gather(self, compute: Callable[[RunGroup], T]) -> list[T]:
        """The values of all recorded groups of all processes, in the order of the seeds; empty but for the leader."""
        mine = [compute(group) for group in self.groups if group.is_recorded]
        return [value for share in self.processes.gather(mine) for value in share]

    def has_checkpoint(self, step: int) -> bool:
        """Whether there is a checkpoint after `step` outer steps."""
        return self.processes.lead(lambda: directory.checkpoint_file(self.run, step).exists())

    def lacks_evaluation(self, step: int) -> bool:
        """Whether metrics.jsonl has no evaluation after `step` outer steps."""
        return self.processes.lead(lambda: not metrics.ends_with_evaluation(self.run, step))

    def write_losses(self, results: Sequence[StepResult], *, seconds: float, steps_taken: int) -> None:
        """Write the losses since the previous log line, and the rate; starts new sums in the state of every group."""
        by_group = dict(zip(map(id, self.groups), results, strict=True))
        records = self.gather(lambda g: loss_record(g.config, g.experiment, g.state, by_group[id(g)]))
        if records:
            record = concat_records(records)
            metrics.write_losses(self.run, record)
            rate = steps_taken / seconds
            timing.write_timing(self.run, record.step, seconds=seconds, rate=rate)
            self.hooks.observer.on_losses(record, rate)
        for group in self.groups:
            group.state.loss_sum.zero_()
            group.state.skipped_tasks.zero_()

    def evaluate(self) -> int:
        """Evaluate and write the record; the number of the signal that stopped it before its end, 0 for none."""

        def on_tasks(predictor: str, done: int, total: int) -> None:
            self.hooks.on_tasks(predictor, done, total)
            if done < total and (number := self.hooks.interrupted()):
                raise _EvaluationStopped(number)

        stopped_by, records = 0, []
        try:
            with self.hooks.abandonable(self._save_rescue, self.processes.size == 1):
                records = [
                    evaluation_record(g.config, g.experiment, g.state, on_tasks=on_tasks)
                    for g in self.groups
                    if g.is_recorded
                ]
        except _EvaluationStopped as stop:
            stopped_by = int(stop.args[0])
        stopped_by = max(map(int, self.processes.exchange(stopped_by)))
        shares = self.processes.gather(records)
        contents = self.contents() if self.config.run.tensorboard and not stopped_by else None
        if shares and not stopped_by:
            record = concat_records([record for share in shares for record in share])
            metrics.write_evaluation(self.run, record)
            if contents is not None:
                self.hooks.observer.on_evaluation(record, contents)
        return stopped_by

    def contents(self) -> dict[str, Any] | None:
        """The contents of a checkpoint of all runs; None but for the leader."""
        parts = self.gather(
            lambda group: map_contents(lambda value: value.detach().cpu(), snapshot(group.config, group.state))
        )
        return concat_runs(parts) | {"config": to_dict(self.config)} if parts else None

    def save(self, step: int, *, last: Path | None) -> Path:
        """Save a checkpoint of all runs after `step` outer steps, and return its path.

        Raises DivergedError, which names the `last` good checkpoint, if the state is not finite.
        """
        contents = self.contents()
        if contents is None:
            return directory.checkpoint_file(self.run, step)
        return save_finite(contents, self.run, last=last)

    def _save_rescue(self) -> None:
        """Save the state within an evaluation, from another thread; several processes save nothing."""
        if self.processes.size > 1:
            self.report_unsaved()
        elif contents := self.contents():
            save_checkpoint(self.run, contents["step"], contents)
            print_message(f"stopped; checkpoint saved. Resume with: maml train --resume {quoted(self.run)}")

    def report_unsaved(self) -> None:
        """Print that training stopped within an outer step, if this is the leader."""
        if self.processes.is_leader:
            advice = f"resume its newest checkpoint with: maml train --resume {quoted(self.run)}"
            print_message(f"{self.run}: stopped within an outer step; {advice}")
