"""Results of a sweep: a table, rows of a CSV file and a JSON document, with a row for each trial, the best first."""

import json
import math
from collections.abc import Iterator, Sequence

from maml_cli.documents import trainings
from maml_cli.errors import printable, shorten
from maml_cli.reporting.csv_text import csv_text
from maml_cli.reporting.format import format_interval, format_number, plural
from maml_cli.reporting.tables import new_console, new_table
from maml_cli.sweeps import Sweep, TrialRow

MAX_VALUE = 24
"""Characters of a value in the table."""


def print_sweep(sweep: Sweep, rows: Sequence[TrialRow]) -> None:
    """Print a row for each trial, the best first; a key without the sections that tell it from no other."""
    console = new_console()
    keys = [at.key for at in sweep.space.dimensions]
    has_seeds = any(row.ci95_seeds is not None for row in rows)
    table = new_table("trial", *short_keys(keys), sweep.config.measure.upper(), "state", "step")
    for row in rows:
        values = [short_value(value_cell(row, key)) for key in keys]
        table.add_row(str(row.number), *values, _error(row), row.state, f"{row.step:,}" if row.step else "")
    console.print(table)
    for row in rows:
        if row.problem:
            console.print(f"trial {row.number}: {printable(row.problem)}")
    tasks = plural(sweep.config.run.eval_tasks, "validation task")
    console.print(f"error on {tasks} after the inner steps of training")
    if has_seeds:
        console.print("mean ± 95 % interval of the mean over seeds, by Student's t")
    if any(map(includes_zero, rows)):
        console.print("an interval as wide as its mean says little of an error: more seeds narrow it")
    console.print(f"runs: {printable(str(sweep.run(1)))} ...")


def iter_sweep_csv(sweep: Sweep, rows: Sequence[TrialRow]) -> Iterator[str]:
    """The lines of a CSV file: a heading, and a row for each trial."""
    keys = [at.key for at in sweep.space.dimensions]
    measure = sweep.config.measure
    yield csv_text([["trial", *keys, measure, "ci95_seeds", "state", "step", "run"]])
    for row in rows:
        numbers = ["" if number is None else repr(number) for number in (row.error, row.ci95_seeds)]
        yield csv_text([[row.number, *(value_cell(row, key) for key in keys), *numbers, row.state, row.step, row.run]])


def sweep_document(sweep: Sweep, rows: Sequence[TrialRow]) -> trainings.SweepDocument:
    """The document of `maml sweep show --json`."""
    return trainings.SweepDocument(
        directory=str(sweep.directory),
        measure=sweep.config.measure,
        keys=[at.key for at in sweep.space.dimensions],
        trials=[_trial(row) for row in rows],
    )


def includes_zero(row: TrialRow) -> bool:
    """Whether the interval over seeds of a trial, which is symmetric around its error, reaches down to 0."""
    return row.error is not None and row.error <= (row.ci95_seeds or 0.0) < math.inf


def value_cell(row: TrialRow, key: str) -> str:
    """The value of `key` as text; empty if it has not been chosen yet."""
    if key not in row.values:
        return ""
    value = row.values[key]
    return value if isinstance(value, str) else json.dumps(value)


def short_value(text: str) -> str:
    """A value of `value_cell` for a table or a tick: numbers with four significant digits, others cut to a width."""
    try:
        number = float(text)
    except ValueError:
        return shorten(printable(text), MAX_VALUE)
    return text if len(text) <= 6 else f"{number:.4g}"


def short_keys(keys: Sequence[str]) -> list[str]:
    """Each key without the sections that tell it from no other: of inner.steps and inner.alpha.init, inner.steps and
    alpha.init."""

    def ends(key: str) -> Iterator[str]:
        words = key.split(".")
        return (".".join(words[start:]) for start in range(max(len(words) - 2, 0), -1, -1))

    def is_unique(end: str) -> bool:
        return sum(f".{key}".endswith(f".{end}") for key in keys) == 1

    return [next(filter(is_unique, ends(key)), key) for key in keys]


def _trial(row: TrialRow) -> trainings.Trial:
    fields = {**row._asdict(), "values": dict(row.values), "errors": list(row.errors), "run": str(row.run)}
    return trainings.Trial.model_validate(fields)


def _error(row: TrialRow) -> str:
    if row.error is None:
        return ""
    return format_number(row.error) if row.ci95_seeds is None else format_interval(row.error, row.ci95_seeds)
