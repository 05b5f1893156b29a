"""Published results as data: the contents of results.json."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from maml_cli.dev.json_document import read_document, write_document
from maml_cli.dev.results_cases import FIRST_BANK, SECOND_BANK, Case
from maml_cli.dev.results_plan import ResultRow


class StepErrors(NamedTuple):
    """Mean squared errors of the test tasks after one inner step.

    mean: mean over tasks.
    ci95: half width of the mean's 95 % interval over tasks.
    median: median over tasks.
    worst: error of the worst task.
    percentile_99: the 99th percentile over tasks; None if it was not computed.
    worst_1_percent_share: share of the worst 1 % of the tasks in the mean, from 0 to 1; None where the mean is not
        finite, for fewer than 100 tasks, and if it was not computed.
    """

    mean: float
    ci95: float
    median: float
    worst: float
    percentile_99: float | None = None
    worst_1_percent_share: float | None = None


DIVERGED = StepErrors(math.inf, math.inf, math.inf, math.inf)
"""The errors of a training that diverged."""


class RunResult(NamedTuple):
    """One training and its evaluations.

    seed: seed of the training.
    outer_steps: number of outer steps.
    engine: engine of the training.
    seconds: seconds of training, without evaluation.
    diverged_step: the outer step in which the training diverged; None if it did not.
    num_values: number of meta-learned values.
    errors: name of the case -> errors after 0, 1, 2, ... inner steps; none of a training that diverged.
    """

    seed: int
    outer_steps: int
    engine: str
    seconds: float
    diverged_step: int | None
    num_values: int
    errors: dict[str, list[StepErrors]]

    def at(self, case: Case, step: int) -> StepErrors:
        """The errors of a case after inner step `step`."""
        return DIVERGED if self.diverged_step is not None else self.errors[case.name][step]


class PublishedRow(NamedTuple):
    """A row of the plan with its results.

    row: as it was trained and evaluated, with all overrides, and the cases that were evaluated.
    after_last_step: what inner steps beyond the last per-step alpha do; None: there is no such rule.
    runs: one entry for each seed, in the order of the seeds.
    """

    row: ResultRow
    after_last_step: str | None
    runs: list[RunResult]

    def cases(self, kind: str) -> list[Case]:
        """The cases of a kind."""
        return [case for case in self.row.cases if case.kind == kind]

    def bank(self, shots: int | None = None, *, kind: str = "") -> Case | None:
        """The case of a bank at K = `shots`, by default that of training: of a `kind`, or the second bank if there is
        one, else the first."""
        shots = self.row.shots if shots is None else shots
        kinds = [kind] if kind else [SECOND_BANK, FIRST_BANK]
        return next((case for kind in kinds for case in self.cases(kind) if case.shots == shots), None)

    def means(self, case: Case, step: int) -> list[float]:
        """The mean error of each seed after inner step `step`."""
        return [run.at(case, step).mean for run in self.runs]

    def last_step(self, case: Case) -> int:
        """The last inner step that all runs have errors of; the trained one where all have diverged."""
        counts = [len(run.errors[case.name]) for run in self.runs if run.diverged_step is None]
        return min(counts) - 1 if counts else self.row.steps[0]


class Results(NamedTuple):
    """The document results.json: its rows in the order of the plan."""

    entries: list[PublishedRow]

    def of_group(self, group: str) -> Iterator[PublishedRow]:
        """The rows of one group."""
        return (entry for entry in self.entries if entry.row.group == group)


def read_results(file: Path) -> Results:
    """The results in `file`, or none where it does not exist; raises FileError if it is damaged."""
    return read_document(file, Results) if file.exists() else Results([])


def write_results(file: Path, results: Results) -> None:
    """Write results.json."""
    write_document(file, results)
