"""Tables of results for a terminal, narrow enough for 80 columns."""

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from maml_cli.checks import Case
from maml_cli.errors import printable
from maml_cli.evaluation import Comparison, Errors, Evaluation, PointErrors, Statistic
from maml_cli.reporting.format import format_interval, format_number, plural

MEASURES = {"mse": "mean squared", "mae": "mean absolute"}
PIPE_WIDTH = 160
"""Columns of a table that is not written to a terminal."""
SEEDS_COLUMN = "±seeds"
"""Heading of the intervals over seeds: never in a column with those over tasks."""

BASELINES = {
    "zero": "predict zero",
    "best_unadapted": "best unadapted",
    "least_squares": "least squares",
    "least_squares_any_frequency": "any frequency",
    "mean_curve": "mean curve",
    "least_squares_sinusoid": "sinusoid",
}
"""Rows of the baselines without inner steps; one that does not apply to the task family is None and has no row."""


class ErrorColumn(NamedTuple):
    """A column of the table of an evaluation.

    title: its heading.
    text: a cell, made from the errors of a row on all points.
    """

    title: str
    text: Callable[[PointErrors], str]


def print_evaluations(evaluations: Sequence[Evaluation], *, measure: str, title: str) -> None:
    """Print a table for each K: errors by inner step, then the baselines."""
    console = new_console()
    for evaluation in evaluations:
        console.print(f"\n{printable(title)}")
        console.print(
            f"K = {evaluation.shots}, {plural(evaluation.num_tasks, 'test task')} (seed {evaluation.seed}); "
            f"{MEASURES[measure]} error, mean ± 95 % interval"
        )
        console.print(_evaluation_table(evaluation, measure))
        for name, note in evaluation.notes.items():
            console.print(f"{BASELINES[name]}: {note}")
    if any(len(evaluation.steps) > evaluation.trained_steps for evaluation in evaluations):
        console.print("* the trained number of inner steps")
    seeds = max(len(evaluation.by_seed) for evaluation in evaluations)
    if seeds > 1:
        console.print(f"±: over tasks, of their means over {plural(seeds, 'seed')}; {SEEDS_COLUMN}: over seeds")


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """Print a table for each K: a row for each run, with its difference from the first run."""
    console = new_console()
    for comparison in comparisons:
        console.print(
            f"\nK = {comparison.shots}, the same {plural(comparison.num_tasks, 'test task')} "
            f"(seed {comparison.seed}) for all"
        )
        console.print(f"{MEASURES[comparison.measure]} error on the {comparison.grid_name}")
        console.print(_comparison_table(comparison))
    runs = [run for comparison in comparisons for run in comparison.runs]
    console.print("mean ± 95 % interval over tasks; differences task by task")
    if any(run.num_seeds > 1 for run in runs):
        console.print(f"{SEEDS_COLUMN}: 95 % interval over the seeds of a run")
    if any(run.compared_step == run.trained_steps for run in runs):
        console.print("* the trained number of inner steps")


def print_cases(cases: Sequence[Case]) -> None:
    """Print a row for each check: verdict, expected value and obtained value."""
    table = new_table("", "check", "expected", "obtained")
    for case in cases:
        verdict = "ok" if case.passed else Text("WRONG", style="bold red")
        table.add_row(verdict, case.name, f"{case.expected:.6g}", f"{case.obtained:.6g}")
    console = new_console()
    console.print(table)
    num_wrong = sum(not case.passed for case in cases)
    failures = f", {num_wrong} WRONG" if num_wrong else ""
    console.print(f"{len(cases) - num_wrong} of {len(cases)} checks passed{failures}")


def _evaluation_table(evaluation: Evaluation, measure: str) -> Table:
    def statistic(errors: Errors) -> Statistic:
        return _statistic(errors, measure)

    columns = [
        ErrorColumn(evaluation.grid_name, lambda errors: _interval(statistic(errors.grid))),
        ErrorColumn("median", lambda errors: format_number(statistic(errors.grid).median)),
        ErrorColumn(f"{evaluation.shots} fresh points", lambda errors: _interval(statistic(errors.query))),
        ErrorColumn("support", lambda errors: format_number(statistic(errors.support).mean)),
    ]
    if len(evaluation.by_seed) > 1:
        columns.insert(1, ErrorColumn(SEEDS_COLUMN, lambda errors: _seeds_interval(statistic(errors.grid))))
    # With intervals over seeds, columns must be closer to fit on 80 columns.
    table = new_table(
        "step", *(column.title for column in columns), "random", gap=1 if len(evaluation.by_seed) > 1 else 2
    )
    for step, (errors, random) in enumerate(zip(evaluation.steps, evaluation.random_init, strict=True)):
        mark = "*" if step == evaluation.trained_steps else " "
        cells = [column.text(errors) for column in columns]
        table.add_row(f"{step}{mark}", *cells, format_number(statistic(random.grid).mean))
    table.add_section()
    for name, label in BASELINES.items():
        baseline = evaluation.baselines.get(name)
        if baseline is not None:
            table.add_row(label, *(column.text(baseline) for column in columns), "")
    return table


def _comparison_table(comparison: Comparison) -> Table:
    has_seeds = any(run.num_seeds > 1 for run in comparison.runs)
    seeds_column = [SEEDS_COLUMN] if has_seeds else []
    table = new_table("run", "step", comparison.measure.upper(), *seeds_column, "median", "difference from first")
    for run in comparison.runs:
        error = _statistic(run.steps[run.compared_step].grid, comparison.measure)
        mark = "*" if run.compared_step == run.trained_steps else " "
        cells = [f"{run.compared_step}{mark}", _interval(error), *([_seeds_interval(error)] if has_seeds else [])]
        difference = "" if run.difference is None else _interval(run.difference)
        table.add_row(printable(run.label), *cells, format_number(error.median), difference)
    return table


def _statistic(errors: Errors, measure: str) -> Statistic:
    return errors.mse if measure == "mse" else errors.mae


def _seeds_interval(value: Statistic) -> str:
    """The half width over seeds; empty for a baseline and for a run of one seed."""
    return "" if value.ci95_seeds is None else format_number(value.ci95_seeds)


def _interval(value: Statistic) -> str:
    return format_interval(value.mean, value.ci95)


def new_table(*titles: str, gap: int = 2) -> Table:
    """A table without lines, whose columns but the first are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
    for index, title in enumerate(titles):
        # A narrow terminal folds cells, because a number on two lines is better than a number that is cut.
        left = index == 0 or title == "check"
        table.add_column(title, justify="left" if left else "right", overflow="fold")
    return table


def new_console(*, to_stderr: bool = False) -> Console:
    """A console that prints text as it is, without markup, as wide as the terminal."""
    stream = sys.stderr if to_stderr else sys.stdout
    return Console(
        file=stream, highlight=False, markup=False, emoji=False, width=None if stream.isatty() else PIPE_WIDTH
    )
