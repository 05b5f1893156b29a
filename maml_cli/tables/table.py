"""Tables of points: a column each for inputs and targets, and perhaps for the task and for the use of a point.

A table is read in blocks, so that memory is bounded; a block has all points of its tasks.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.errors import DataError, shorten
from maml_cli.tables.row_values import are_numbers, parse_numbers, quoted, width_problem
from maml_cli.tables.text_rows import Row, TextRows, open_rows

BLOCK_ROWS = 500_000
"""Rows of a block; within it, the rows of a task may be in any order."""
ROWS_AT_A_TIME = 20_000
"""Rows that are converted at a time."""
MAX_TASK_ROWS = 200_000
"""Largest number of rows of a task."""
USES = {"support": 0, "query": 1, "train": 0, "test": 1}
"""Words in the column `split` -> the use of a point: 1 for a query point. The first word of each number is its name."""


class Columns(NamedTuple):
    """The names of the columns of a table.

    x, y: of inputs and targets.
    task: of the labels of tasks; empty for `task`, if there is such a column.
    """

    x: str = "x"
    y: str = "y"
    task: str = ""


class PointTable(NamedTuple):
    """Points of whole tasks, task by task, in the order of their rows.

    source: the file, for messages.
    labels: of the B tasks, by their first row; one empty label where no column has them.
    task: index of the task of each point, (N,).
    x, y: inputs and targets, (N,), in float64; NaN for a target that the table lacks.
    use: of each point, by the numbers of `uses`, 0 without a column `split`, (N,).
    lines: the line of each point, (N,).
    """

    source: str
    labels: Sequence[str]
    task: Tensor
    x: Tensor
    y: Tensor
    use: Tensor
    lines: Tensor

    @property
    def is_query(self) -> Tensor:
        """Whether a point is a query point, (N,)."""
        return self.use == USES["query"]

    def tasks(self, start: int, stop: int) -> "PointTable":
        """The tasks from index `start` to `stop`, the latter not included."""
        low, high = torch.searchsorted(self.task, torch.tensor([start, stop])).tolist()
        columns = (column[low:high] for column in (self.x, self.y, self.use, self.lines))
        return PointTable(self.source, self.labels[start:stop], self.task[low:high] - start, *columns)


class TableReader(NamedTuple):
    """An open table, of which the first line has been read.

    has_tasks, has_y, has_split: whether a column has labels of tasks, targets, and the use of each point.
    unused: names of the columns that are not used.
    tables: its points, in blocks of whole tasks; an iterator.
    """

    has_tasks: bool
    has_y: bool
    has_split: bool
    unused: Sequence[str]
    tables: Iterator[PointTable]


class _Layout(NamedTuple):
    """The number of columns, and the index of each that is used; None for a column that is missing."""

    width: int
    x: int
    y: int | None
    task: int | None = None
    split: int | None = None


class _Block(NamedTuple):
    """Rows by column, as in PointTable, with the label of the task of each."""

    labels: list[str]
    x: list[float]
    y: list[float]
    use: list[int]
    lines: list[int]


def read_table(
    file: Path | None, columns: Columns, *, needs_y: bool = True, uses: Mapping[str, int] = USES
) -> TableReader:
    """Open the table in `file`, or in standard input for None.

    Its first line names the columns; without names, the first of two columns is x and the second y. Columns of other
    names are not used. The rows of a task follow one another, or are all within the first BLOCK_ROWS rows of a table
    that is not longer. `needs_y`: whether targets must be there. `uses`: words in the column `split`, as in USES.

    Raises FileError if it cannot be read, and DataError, also while it is read, with the line of what is invalid.
    """
    text = open_rows(file)
    line, first = next(text.rows)
    names = [name.strip().strip('"') for name in first]
    if needs_y and len(names) == 1:
        raise DataError(f"{text.source}:{line}: one column; separate x and y by commas, semicolons or tabs")
    if are_numbers(first):
        layout = _layout_without_names(names, text.source, line, needs_y=needs_y)
        unused = list[str]()
        rows: Iterator[Row] = chain([(line, first)], text.rows)
    else:
        layout = _layout_by_names(names, f"{text.source}:{line}", columns, needs_y=needs_y)
        used = {layout.x, layout.y, layout.task, layout.split}
        unused = [name for index, name in enumerate(names) if index not in used]
        rows = text.rows
    tables = _iter_tables(text._replace(rows=rows), layout, uses)
    has_task, has_y, has_split = (column is not None for column in (layout.task, layout.y, layout.split))
    return TableReader(has_task, has_y, has_split, unused, tables)


def _layout_without_names(fields: Sequence[str], source: str, line: int, *, needs_y: bool) -> _Layout:
    if len(fields) == 1 and not needs_y:
        return _Layout(1, 0, None)
    if len(fields) != 2:
        wanted = "x and y" if needs_y else "x, or x and y"
        raise DataError(
            f"{source}:{line}: {len(fields)} columns without names; give {wanted}, or a header that names them"
        )
    return _Layout(2, 0, 1)


def _layout_by_names(names: Sequence[str], position: str, columns: Columns, *, needs_y: bool) -> _Layout:
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{position}: two columns are named {quoted(twice)}; give each a name of its own")

    def index(option: str, name: str) -> int:
        if name in names:
            return names.index(name)
        listed = shorten(", ".join(names), 200)
        raise DataError(f"{position}: no column {quoted(name)}; there are {listed}; choose one with --{option} COLUMN")

    optional = {name: names.index(name) if name in names else None for name in (columns.y, "task", "split")}
    return _Layout(
        len(names),
        index("x", columns.x),
        index("y", columns.y) if needs_y else optional[columns.y],
        index("task", columns.task) if columns.task else optional["task"],
        optional["split"],
    )


def _iter_tables(text: TextRows, layout: _Layout, uses: Mapping[str, int]) -> Iterator[PointTable]:
    """Blocks of whole tasks: the last task of a block may go on, and begins the next one instead."""
    block, seen = _Block([], [], [], [], []), set[str]()
    is_last = False
    while not is_last:
        at_least = len(block.x) + 1  # a task of a whole block is carried over and goes on
        while len(block.x) < max(BLOCK_ROWS, at_least) and not is_last:
            rows = list(islice(text.rows, ROWS_AT_A_TIME))
            is_last = len(rows) < ROWS_AT_A_TIME
            _append(block, rows, text, layout, uses)
        ready, block = (block, _Block([], [], [], [], [])) if is_last else _split_last_task(block, text.source)
        labels = dict.fromkeys(ready.labels)
        if again := next((label for label in labels if label in seen), None) if seen else None:
            line = ready.lines[ready.labels.index(again)]
            raise DataError(
                f"{text.source}:{line}: task {quoted(again)} occurs again; in a table of more than {BLOCK_ROWS:,} "
                f"rows, those of a task must follow one another: sort it by task"
            )
        if not is_last or seen:
            seen.update(labels)
        if ready.x:
            yield _to_table(ready, [*labels], text.source)
        elif is_last and not seen:
            raise DataError(f"{text.source}: a header without rows; give rows of numbers")


def _split_last_task(block: _Block, source: str) -> tuple[_Block, _Block]:
    """The block up to its last task, and the rows of that task."""
    last = block.labels[-1]
    start = len(block.labels)
    while start and block.labels[start - 1] == last:
        start -= 1
    if len(block.labels) - start > MAX_TASK_ROWS:
        name = f"task {quoted(last)}" if last else "the table"
        raise DataError(
            f"{source}:{block.lines[start]}: {name} has more than {MAX_TASK_ROWS:,} rows; a learner adapts to a few "
            f"points"
        )
    return _Block(*(column[:start] for column in block)), _Block(*(column[start:] for column in block))  # type: ignore[arg-type]


def _append(block: _Block, rows: Sequence[Row], text: TextRows, layout: _Layout, uses: Mapping[str, int]) -> None:
    """Append rows to `block`, whose lists are mutated; raises DataError for the first row that is invalid."""
    for line, row in rows:
        if len(row) != layout.width:
            raise DataError(f"{text.source}:{line}: {width_problem(row, layout.width, text.separator)}")
    block.lines.extend([line for line, _ in rows])
    block.x.extend(parse_numbers(rows, layout.x, "x", text.source))
    block.y.extend([math.nan] * len(rows) if layout.y is None else parse_numbers(rows, layout.y, "y", text.source))
    block.labels.extend([""] * len(rows) if layout.task is None else [row[layout.task].strip() for _, row in rows])
    if layout.split is None:
        block.use.extend([0] * len(rows))
        return
    for line, row in rows:
        use = row[layout.split].strip().lower()
        if use not in uses:
            names = {number: word for word, number in reversed([*uses.items()])}  # the first word of each
            listed = " or ".join(names[number] for number in sorted(names))
            raise DataError(f"{text.source}:{line}: split is {quoted(use)}; must be {listed}")
        block.use.append(uses[use])


def _to_table(block: _Block, labels: Sequence[str], source: str) -> PointTable:
    index = {label: number for number, label in enumerate(labels)}
    task, order = torch.tensor([index[label] for label in block.labels]).sort(stable=True)
    x, y = (torch.tensor(values, dtype=torch.float64)[order] for values in (block.x, block.y))
    return PointTable(source, labels, task, x, y, torch.tensor(block.use)[order], torch.tensor(block.lines)[order])
