"""The error of each test task as CSV: a row for each K and task."""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import islice

from maml_cli.evaluation import EvaluationResult, iter_task_rows

ROWS_AT_A_TIME = 1000


def iter_task_csv(result: EvaluationResult) -> Iterator[str]:
    """The text of the table, some lines at a time: a header, and a line for each row of `result.per_task`.

    Numbers have nine digits; a cell is empty where its column does not apply to a task.
    """
    by_shots = [evaluation.task_errors for evaluation in result.results if evaluation.task_errors]
    rows = (row for task_errors in by_shots for row in iter_task_rows(task_errors))
    header = next(rows)
    yield _csv_text([header, header.values()])
    while lines := _csv_text(row.values() for row in islice(rows, ROWS_AT_A_TIME)):
        yield lines


def _csv_text(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(_cell, row) for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    return f"{value:.9g}" if isinstance(value, float) else "" if value is None else value
