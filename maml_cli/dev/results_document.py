"""Published results as data: the contents of results.json, and the directory that holds it."""

from pathlib import Path
from typing import NamedTuple

from maml_cli.dev.json_document import read_document, write_document
from maml_cli.dev.results_plan import Goal


class StepErrors(NamedTuple):
    """Mean squared error on the grid over the test tasks, after one inner step.

    mean: mean over tasks.
    ci95: half width of the mean's 95 % interval over tasks.
    median: median over tasks.
    max: error of the worst task.
    """

    mean: float
    ci95: float
    median: float
    max: float


class ShotsResult(NamedTuple):
    """Errors of one run at one K.

    shots: K, the support points of a test task.
    steps: errors after 0, 1, 2, ... inner steps.
    """

    shots: int
    steps: list[StepErrors]


class RunResult(NamedTuple):
    """One training and its evaluation.

    seed: seed of the training.
    outer_steps: number of outer steps.
    engine: engine of the training.
    seconds: seconds of training, without evaluation.
    results: errors at each K.
    """

    seed: int
    outer_steps: int
    engine: str
    seconds: float
    results: list[ShotsResult]

    def errors(self, shots: int, step: int) -> StepErrors:
        """The errors at K = `shots` after inner step `step`."""
        (result,) = (result for result in self.results if result.shots == shots)
        return result.steps[step]


class PublishedRow(NamedTuple):
    """A row of the plan with its results.

    name, preset, overrides, title, label, goals, published: as in the plan's `ResultRow`.
    num_tasks: test tasks of the evaluations.
    after_last_step: what inner steps beyond the last per-step alpha do; None: there are none.
    report_steps: the inner steps whose errors the tables show; the first of them is the trained number.
    runs: one entry for each seed, in the order of the seeds.
    """

    name: str
    preset: str
    overrides: tuple[str, ...]
    num_tasks: int
    title: str
    label: str
    after_last_step: str | None
    published: str
    report_steps: tuple[int, ...]
    goals: tuple[Goal, ...]
    runs: list[RunResult]


class Results(NamedTuple):
    """The document results.json: its rows in the order of the plan."""

    entries: list[PublishedRow]


def read_results(file: Path) -> Results:
    """The results in `file`, or none where it does not exist; raises FileError if it is damaged."""
    return read_document(file, Results) if file.exists() else Results([])


def write_results(file: Path, results: Results) -> None:
    """Write results.json."""
    write_document(file, results)
