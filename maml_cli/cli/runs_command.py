"""The command `maml runs`: the run directories at a glance."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maml_cli.cli.completion import complete_condition, complete_own_run, complete_words
from maml_cli.cli.options import JsonOpt
from maml_cli.cli.parameters import one_of, path
from maml_cli.errors import ConfigError
from maml_cli.messages import columns_of, print_message
from maml_cli.reporting.format import plural

if TYPE_CHECKING:
    from maml_cli.runs import RunOverview

ORDERS: Mapping[str, Callable[["RunOverview"], Any]] = {
    "age": lambda run: -run.changed,
    "name": lambda run: run.name,
    "error": lambda run: math.inf if run.error is None else run.error,
    "step": lambda run: -run.step,
}
"""The values by which runs are sorted, the smallest first."""

FolderArg = Annotated[
    Path,
    typer.Argument(
        parser=path,
        metavar="DIR",
        help="A directory with run directories directly in it, or one of them.",
        autocompletion=complete_own_run,
    ),
]
SortOpt = Annotated[
    str,
    typer.Option(
        "--sort",
        parser=one_of([*ORDERS]),
        autocompletion=complete_words([*ORDERS]),
        metavar="ORDER",
        help="age: the newest first; name; error: the smallest first; step: the most outer steps first.",
    ),
]
WhereOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        "-w",
        metavar="CONDITION",
        help="Only runs with KEY=VALUE, or != < <= > >=, KEY being a key of the config or name, preset, state, step, "
        "error or engine; may be repeated.",
        autocompletion=complete_condition,
    ),
]
CsvOpt = Annotated[bool, typer.Option("--csv", help="Print CSV, a row for each run.")]


def runs(
    folder: FolderArg = Path("outputs"),
    sort: SortOpt = "age",
    where: WhereOpt = None,
    as_json: JsonOpt = False,
    as_csv: CsvOpt = False,
) -> None:
    """List runs: state, outer steps, last validation error, and what differs from the preset.

    The preset is that of the run's name, such as finn-10shot of finn-10shot-2; for other names the closest one, or none
    if the defaults are as close. The error is that of the last evaluation in training. A run is done, training (a
    process has locked it), interrupted, diverged or damaged; the bytes of large checkpoints are not verified. A narrow
    terminal shows fewer columns; the output of a pipe has all.

    [bold]Examples[/]

      maml runs
      maml runs --sort error --where 'outer.lr<0.01' --where state=done
      maml runs outputs/published --csv
    """
    from maml_cli.cli.conditions import parse_condition
    from maml_cli.documents import to_json
    from maml_cli.reporting.run_table import iter_run_csv, run_documents, run_lines
    from maml_cli.runs import read_overview, run_directories

    if as_json and as_csv:
        raise ConfigError("--json, --csv: give one of the two")
    conditions = [parse_condition(text) for text in where or []]
    listed = [read_overview(run) for run in run_directories(folder)]
    chosen = [run for run in listed if all(condition.holds(run) for condition in conditions)]
    chosen.sort(key=lambda run: (ORDERS[sort](run), -run.changed, run.name))
    now = time.time()
    if as_json:
        typer.echo(to_json(run_documents(chosen, now=now)))
    elif as_csv:
        typer.echo("".join(iter_run_csv(chosen, now=now)), nl=False)
    elif chosen:
        width = columns_of(sys.stdout)
        typer.echo("\n".join(run_lines(chosen, now=now, width=width)))
    if not chosen:
        count = f"none of {plural(len(listed), 'run')} is such a run" if listed else "no run directories"
        print_message(f"{folder}: {count}")
