"""Evaluations of the published results: trained learners, and the errors of their cases, each stored when it is made.

Errors are stored as JSON in evaluations/NAME-seedS beside the run directories, with the digest of the checkpoint.
"""

import contextlib
import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from maml_cli.config import Config, override
from maml_cli.dev.json_document import read_document, write_document
from maml_cli.dev.lstm_baseline import lstm_errors, read_lstm
from maml_cli.dev.results_cases import FIRST_BANK, SECOND_BANK, Case
from maml_cli.dev.results_document import StepErrors
from maml_cli.dev.results_plan import ResultRow
from maml_cli.errors import FileError
from maml_cli.evaluation import PointErrors, Protocol, TrainedRun, evaluate_learner, open_run
from maml_cli.experiment import Experiment

EVALUATIONS = "evaluations"
"""The directory of stored errors."""


class Learner(NamedTuple):
    """A trained learner, ready to be evaluated.

    digest: SHA-256 of its checkpoint.
    errors: (case, last inner step) -> errors after 0, 1, ... inner steps.
    last_step: number of inner steps -> that number, or fewer where there are no alphas for so many.
    """

    digest: str
    errors: Callable[[Case, int], list[PointErrors]]
    last_step: Callable[[int], int]


class StoredErrors(NamedTuple):
    """The file of a case.

    digest: of the checkpoint.
    case: the evaluation.
    steps: errors after 0, 1, ... inner steps.
    """

    digest: str
    case: Case
    steps: list[StepErrors]


def open_learner(run: Path) -> Learner:
    """The learner of the finished training in the run directory `run`."""
    opened = open_run(run)
    return Learner(
        file_digest(opened.checkpoint.file),
        partial(_errors, run),
        lambda steps: min(steps, opened.max_steps or steps),
    )


def open_lstm(run: Path, config: Config) -> Learner:
    """The LSTM that was trained on the tasks of `config`, in the directory `run`; it has no inner steps."""
    trained = read_lstm(config, run)
    assert trained is not None

    def errors(case: Case, last_step: int) -> list[PointErrors]:
        changed = override(config, case.overrides, label=str(trained.file))
        return [lstm_errors(trained.network, changed, _protocol(case, last_step), case.shots)]

    return Learner(file_digest(trained.file), errors, lambda steps: 0)


def num_learned_values(experiment: Experiment) -> int:
    """The number of values that the outer loop learns in one run: initial parameters, alphas, curvature, penalties."""
    params, rule_params = experiment.template
    learned = [key for keys in experiment.learned_keys.values() for key in keys]
    return sum(tensor[0].numel() for tensor in [*params.values(), *(rule_params[key] for key in learned)])


def last_step(learner: Learner, row: ResultRow, case: Case, trained_steps: int) -> int:
    """The last inner step of an evaluation: the last that tables show, and in the banks of a row with a goal relative
    to the trained number, twice that number."""
    shown = max(row.steps)
    is_compared = case.kind in (FIRST_BANK, SECOND_BANK) and any(goal.relative_to is not None for goal in row.goals)
    return learner.last_step(max(2 * trained_steps, shown) if is_compared else shown)


def stored_errors(learner: Learner, case: Case, step: int, file: Path) -> list[StepErrors] | None:
    """The errors of a case after inner steps 0 to `step` in its file; None unless it has them, of this checkpoint."""
    with contextlib.suppress(FileError, OSError):  # missing, cut short or of another version: made anew
        stored = read_document(file, StoredErrors)
        if stored[:2] == (learner.digest, case) and len(stored.steps) > step:
            return stored.steps[: step + 1]
    return None


def store_errors(learner: Learner, case: Case, step: int, file: Path) -> list[StepErrors]:
    """The errors of a case after inner steps 0 to `step`: those in its file, or new ones, which it then has."""
    if (stored := stored_errors(learner, case, step, file)) is not None:
        return stored
    steps = [_step_errors(case, errors) for errors in learner.errors(case, step)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_document(file, StoredErrors(learner.digest, case, steps))
    return steps


def file_digest(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _errors(run: Path, case: Case, last_step: int) -> list[PointErrors]:
    opened: TrainedRun = open_run(run, overrides=case.overrides)
    (steps,) = evaluate_learner(opened, _protocol(case, last_step))
    return steps


def _protocol(case: Case, last_step: int) -> Protocol:
    return Protocol(case.num_tasks, (case.shots,), last_step, case.seed, case.noisy_targets)


def _step_errors(case: Case, errors: PointErrors) -> StepErrors:
    mse = (errors.query if case.points == "query" else errors.grid).mse
    assert mse.tail is not None
    return StepErrors(
        mse.mean, mse.ci95, mse.median, mse.tail.worst, mse.tail.percentile_99, mse.tail.worst_1_percent_share
    )
