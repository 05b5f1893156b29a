"""Runs at a glance as a table, as CSV and as JSON, without PyTorch."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maml_cli.documents import trainings
from maml_cli.errors import printable, shorten
from maml_cli.reporting.csv_text import csv_text
from maml_cli.reporting.format import format_plain, format_short
from maml_cli.runs import RunOverview

if TYPE_CHECKING:
    from maml_cli.runs import Pruning

TITLES = ("run", "preset", "state", "step", "error", "engine", "age", "changes")
RIGHT_ALIGNED = ("step", "error", "age")
OPTIONAL = ("preset", "engine", "changes", "age")
"""Columns that a narrow terminal leaves out, in this order."""
GAP = "  "
LEAST_CHANGES, SHORTEST_CHANGES, LEAST_NAME = 24, 12, 12
"""Columns that changes (before other columns are left out, and after that) and names have at least."""
UNITS = ((86_400 * 365, "y"), (86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
CSV_COLUMNS = (
    "name", "path", "preset", "state", "step", "num_steps", "error", "engine", "age_seconds", "changes", "problem",
)  # fmt: skip


def run_lines(runs: Sequence[RunOverview], *, now: float, width: int | None) -> list[str]:
    """The lines of a table of `runs`, of `width` columns at most where it is given (and allows a legible table).

    Of the changes of a run, those that few of the runs share come first.

    now: the time from which ages count, in seconds since the epoch.
    """
    counts = Counter(change for run in runs for change in _changes(run, digits=4))
    cells = [dict(zip(TITLES, TITLES, strict=True)), *(_cells(run, now, counts) for run in runs)]
    titles = [title for title in TITLES if any(row[title] for row in cells[1:])]
    widths = {title: max(len(row[title]) for row in cells) for title in titles}
    if width is not None:
        _narrow(widths, width)
    return [_line(row, widths) for row in cells]


def run_documents(runs: Sequence[RunOverview], *, now: float) -> trainings.RunsDocument:
    """The document of `maml runs --json`: an object for each run."""
    return trainings.RunsDocument(
        runs=[
            trainings.RunRow(
                name=run.name,
                path=str(run.path),
                preset=run.preset or None,
                changes=dict(run.changes),
                state=run.state,
                step=run.step,
                num_steps=run.num_steps,
                error=run.error,
                engine=run.engine or None,
                age_seconds=max(0.0, now - run.changed),
                problem=run.problem or None,
            )
            for run in runs
        ]
    )


def pruning_document(plans: "Sequence[Pruning]", removed: "Sequence[Pruning]") -> trainings.CleanDocument:
    """The document of `maml clean --json`: the checkpoints of each run that can be removed, and those that were."""
    return trainings.CleanDocument(runs=[*map(_pruned, plans)], removed=[*map(_pruned, removed)])


def _pruned(plan: "Pruning") -> trainings.PrunedRun:
    paths = {"run": str(plan.run), "files": [str(file) for file in plan.files]}
    return trainings.PrunedRun(**{**plan._asdict(), **paths})


def iter_run_csv(runs: Sequence[RunOverview], *, now: float) -> Iterator[str]:
    """The lines of `maml runs --csv`: a header and a row for each run; a cell without a value is empty."""
    for row in [CSV_COLUMNS, *(_csv_row(run, now) for run in runs)]:
        yield csv_text([row])


def format_age(seconds: float) -> str:
    """A duration in its largest unit.

    >>> [format_age(seconds) for seconds in (0.4, 59, 61, 7300, 86_400 * 3.5, 86_400 * 800)]
    ['0 s', '59 s', '1 min', '2 h', '3 d', '2 y']
    """
    length, unit = next((row for row in UNITS if seconds >= row[0]), UNITS[-1])
    return f"{int(max(0.0, seconds) // length)} {unit}"


def _cells(run: RunOverview, now: float, counts: Mapping[str, int]) -> dict[str, str]:
    changes = sorted(_changes(run, digits=4), key=lambda change: counts[change])
    planned = "" if run.num_steps in (None, run.step) else f"/{run.num_steps}"
    return {
        "run": printable(run.name),
        "preset": run.preset,
        "state": run.state,
        "step": f"{run.step}{planned}",
        "error": "" if run.error is None else format_short(run.error),
        "engine": run.engine,
        "age": format_age(now - run.changed),
        "changes": printable(run.problem or " ".join(changes)),
    }


def _changes(run: RunOverview, *, digits: int | None) -> list[str]:
    """The changes as `--set` takes them; numbers of so many significant digits, or exact ones for None."""
    return [f"{key}={format_plain(value, digits=digits)}" for key, value in run.changes.items()]


def _csv_row(run: RunOverview, now: float) -> list[Any]:
    error = "" if run.error is None else run.error
    changes = " ".join(_changes(run, digits=None))
    age = f"{max(0.0, now - run.changed):.0f}"
    steps = [run.step, "" if run.num_steps is None else run.num_steps]
    row = [run.name, run.path, run.preset, run.state, *steps, error, run.engine, age, changes, run.problem]
    return [printable(str(cell)) for cell in row]


def _narrow(widths: dict[str, int], width: int) -> None:
    """Fit columns of `widths` into `width`: columns are left out, changes cut and left out, and names cut at last, as
    they are what other commands take."""

    def excess() -> int:
        return sum(widths.values()) + len(GAP) * (len(widths) - 1) - width

    def cut(title: str, least: int) -> None:
        if title in widths:
            widths[title] -= min(max(excess(), 0), max(widths[title] - least, 0))

    cut("changes", LEAST_CHANGES)
    for title in OPTIONAL:
        if title == "changes":
            cut(title, SHORTEST_CHANGES)
        if excess() > 0:
            widths.pop(title, None)
    cut("run", LEAST_NAME)


def _line(row: dict[str, str], widths: dict[str, int]) -> str:
    cells = []
    for title, width in widths.items():
        text = shorten(row[title], width)
        cells.append(text.rjust(width) if title in RIGHT_ALIGNED else text.ljust(width))
    return GAP.join(cells).rstrip()
