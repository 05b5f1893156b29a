"""The command `maml clean`: old checkpoints of runs are removed."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maml_cli.cli.completion import complete_own_run
from maml_cli.cli.options import JsonOpt, run_path
from maml_cli.cli.parameters import whole_number
from maml_cli.errors import FileError, printable
from maml_cli.messages import print_message
from maml_cli.reporting.format import plural

if TYPE_CHECKING:
    from maml_cli.runs import Pruning

RunOrFolderArg = Annotated[
    Path,
    typer.Argument(
        parser=run_path,
        metavar="RUN|DIR",
        help="A run directory or latest, or a directory with run directories directly in it.",
        autocompletion=complete_own_run,
    ),
]
KeepLastOpt = Annotated[
    int,
    typer.Option(
        "--keep-last",
        parser=whole_number(1, 1_000_000),
        metavar="N",
        help="Checkpoints to keep of each run: the last N.",
        show_default=False,
    ),
]
YesOpt = Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")]


def clean(
    keep_last: KeepLastOpt, folder: RunOrFolderArg = Path("outputs"), yes: YesOpt = False, as_json: JsonOpt = False
) -> None:
    """Remove old checkpoints of a run, or of all runs in a directory.

    The files and their sizes are listed first; nothing is removed without --yes or, on a terminal, a yes. The newest
    good checkpoint, that of last.json and later ones stay whatever N is, so that the run can be evaluated and resumed.
    Runs in training are left as they are. maml train --resume RUN --set outer.steps=N may need an older checkpoint.

    [bold]Examples[/]

      maml clean outputs/mine --keep-last 2
      maml clean --keep-last 1 --yes
      maml clean --keep-last 1 --json
    """
    from maml_cli.documents import to_json
    from maml_cli.reporting.run_table import pruning_document
    from maml_cli.runs import plan_pruning, prune, run_directories

    runs = run_directories(folder)
    plans = [plan_pruning(run, keep_last=keep_last) for run in runs]
    for plan in plans:
        if plan.problem and runs == [folder]:
            raise FileError(plan.problem)
        if plan.problem:
            print_message(plan.problem)
    chosen = [plan for plan in plans if plan.files]
    for line in [] if as_json else _table(chosen):
        typer.echo(line)
    removed: list[Pruning] = []
    if not chosen:
        print_message(f"{folder}: no checkpoint to remove")
    elif not yes and not _confirmed(chosen):
        print_message("nothing removed" if _is_interactive() else "nothing removed; --yes removes them")
    else:
        for plan in chosen:
            try:
                removed.append(prune(plan, keep_last=keep_last))
            except FileError as error:
                print_message(error.lines[0])
        print_message(f"removed {_amount(removed)}")
    if as_json:
        typer.echo(to_json(pruning_document(plans, removed)))


def _table(plans: Sequence["Pruning"]) -> list[str]:
    """A line for each run: its checkpoints to remove, their size, and those that stay."""
    rows = [
        (printable(str(plan.run)), _amount([plan]), f"{plan.num_left:,} stay", _outer_steps(plan)) for plan in plans
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _outer_steps(plan: "Pruning") -> str:
    """The first and the last outer step of the checkpoints to remove."""
    steps = [f"{int(file.stem.removeprefix('step-')):,}" for file in plan.files]
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"


def _amount(plans: Sequence["Pruning"]) -> str:
    num_files, num_bytes = sum(len(plan.files) for plan in plans), sum(plan.num_bytes for plan in plans)
    return f"{plural(num_files, 'checkpoint')}, {num_bytes / 1e6:,.2f} MB"


def _confirmed(plans: Sequence["Pruning"]) -> bool:
    """Whether the user at a terminal wants `plans` carried out."""
    if not _is_interactive():
        return False
    typer.echo(f"remove {_amount(plans)}? [y/N] ", err=True, nl=False)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _is_interactive() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
