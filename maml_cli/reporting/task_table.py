"""The error of each test task as CSV: a row for each K and task."""

from collections.abc import Iterable, Iterator
from itertools import islice

from maml_cli.evaluation import EvaluationResult, iter_task_rows
from maml_cli.reporting.csv_text import csv_text

ROWS_AT_A_TIME = 1000


def iter_task_csv(result: EvaluationResult) -> Iterator[str]:
    """The text of the table, some lines at a time: a header, and a line for each row of `result.per_task`.

    Numbers have nine digits; a cell is empty where its column does not apply to a task.
    """
    by_shots = [evaluation.task_errors for evaluation in result.results if evaluation.task_errors]
    rows = (row for task_errors in by_shots for row in iter_task_rows(task_errors))
    header = next(rows)
    yield _lines([header, header.values()])
    while lines := _lines(row.values() for row in islice(rows, ROWS_AT_A_TIME)):
        yield lines


def _lines(rows: Iterable[Iterable[object]]) -> str:
    return csv_text(map(_cell, row) for row in rows)


def _cell(value: object) -> object:
    return f"{value:.9g}" if isinstance(value, float) else "" if value is None else value
