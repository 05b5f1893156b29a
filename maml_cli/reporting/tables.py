"""Tables of results for a terminal, narrow enough for 80 columns."""

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from maml_cli.checks import Case
from maml_cli.errors import printable
from maml_cli.evaluation import Comparison, Errors, RunDifference, Statistic
from maml_cli.reporting.format import format_interval, format_number, format_plain, plural

MEASURES = {"mse": "mean squared", "mae": "mean absolute"}
PIPE_WIDTH = 160
"""Columns of a table that is not written to a terminal."""
UNLIMITED = 10_000
"""Columns of a page on which every table is as wide as its cells."""
SEEDS_COLUMN = "±seeds"
"""Heading of the intervals over seeds: never in a column with those over tasks."""


class TitledTable(NamedTuple):
    """A table with the lines of text above and below it.

    heading: lines above.
    table: its rows.
    notes: lines below.
    """

    heading: Sequence[str]
    table: Table
    notes: Sequence[str] = ()


class PlainTable(NamedTuple):
    """The text of a table, for pages.

    titles: of the columns.
    groups: rows of cells, in groups that a line divides.
    """

    titles: Sequence[str]
    groups: Sequence[Sequence[Sequence[str]]]


def plain_table(table: Table) -> PlainTable:
    """The text of `table`."""
    groups: list[list[Sequence[str]]] = [[]]
    for row, cells in zip(table.rows, zip(*(column.cells for column in table.columns), strict=True), strict=True):
        groups[-1].append([*map(str, cells)])
        if row.end_section:
            groups.append([])
    return PlainTable([str(column.header) for column in table.columns], [group for group in groups if group])


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """Print a table for each K: a row for each run, with its difference from the first run."""
    console = new_console()
    for heading, table, _ in comparison_tables(comparisons):
        console.print("\n" + "\n".join(heading))
        _print_with_names(console, table)
    for note in comparison_notes(comparisons):
        console.print(note)


def comparison_tables(comparisons: Sequence[Comparison]) -> Iterator[TitledTable]:
    """A table for each K: a row for each run, with its difference from the first run."""
    for comparison in comparisons:
        heading = [
            f"K = {comparison.shots}, the same {plural(comparison.num_tasks, 'test task')} "
            f"(seed {comparison.seed}) for all",
            f"{MEASURES[comparison.measure]} error on the {comparison.grid_name}",
        ]
        yield TitledTable(heading, _comparison_table(comparison))


def comparison_notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Lines that explain the signs in the tables of these comparisons."""
    runs = [run for comparison in comparisons for run in comparison.runs]
    notes = ["mean ± 95 % interval over tasks; differences task by task"]
    if any(run.num_seeds > 1 for run in runs):
        notes.append(f"{SEEDS_COLUMN}: 95 % interval over the seeds of a run")
    if any(run.compared_step == run.trained_steps for run in runs):
        notes.append("* the trained number of inner steps")
    return notes


def print_difference(difference: RunDifference) -> None:
    """Print the keys that differ, with both values, and the comparisons of errors or the note without them."""
    console = new_console()
    if difference.keys:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        names = {"first": printable(difference.left), "second": printable(difference.right)}
        is_wide = sum(map(len, names.values())) > console.width // 2
        for short, name in names.items() if is_wide else ():
            console.print(f"{short}: {name}", soft_wrap=True)
        for title in ("key", *(names if is_wide else names.values())):
            table.add_column(title, overflow="fold")
        for row in difference.keys:
            table.add_row(row.key, *(printable(format_plain(value)) for value in (row.left, row.right)))
        console.print(table)
    else:
        console.print("no key of the config differs")
    if difference.note:
        console.print(f"\nno difference of errors: {difference.note}", soft_wrap=True)
    else:
        print_comparisons(difference.comparisons)


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


def _print_with_names(console: Console, table: Table) -> None:
    """Print a table whose first column has names; where they do not fit, it has their numbers, and each has a line of
    its own below, unbroken as it is copied."""
    names = [str(name) for name in table.columns[0].cells]
    is_narrow = console.measure(table, options=console.options.update(width=UNLIMITED)).maximum > console.width
    if is_narrow:
        table.columns[0]._cells[:] = [f"[{number}]" for number in range(1, len(names) + 1)]
    console.print(table)
    for number, name in enumerate(names if is_narrow else (), start=1):
        console.print(f"[{number}] {name}", soft_wrap=True)


def _comparison_table(comparison: Comparison) -> Table:
    has_seeds = any(run.num_seeds > 1 for run in comparison.runs)
    seeds_column = [SEEDS_COLUMN] if has_seeds else []
    table = new_table("run", "step", comparison.measure.upper(), *seeds_column, "median", "difference from first")
    for run in comparison.runs:
        error = statistic_of(run.steps[run.compared_step].grid, comparison.measure)
        mark = "*" if run.compared_step == run.trained_steps else " "
        cells = [f"{run.compared_step}{mark}", interval(error), *([seeds_interval(error)] if has_seeds else [])]
        difference = "" if run.difference is None else interval(run.difference)
        table.add_row(printable(run.label), *cells, format_number(error.median), difference)
    return table


def statistic_of(errors: Errors, measure: str) -> Statistic:
    """The statistic of the measure, `mse` or `mae`."""
    return errors.mse if measure == "mse" else errors.mae


def seeds_interval(value: Statistic) -> str:
    """The half width over seeds; empty for a baseline and for a run of one seed."""
    return "" if value.ci95_seeds is None else format_number(value.ci95_seeds)


def interval(value: Statistic) -> str:
    """The mean and the half width over tasks."""
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
