"""The command `maml diff`: two runs side by side."""

from pathlib import Path
from typing import Annotated

import typer

from maml_cli.cli.completion import complete_run
from maml_cli.cli.options import (
    AnyFamilyOpt,
    DeviceOpt,
    JsonOpt,
    SeedOpt,
    ShotsOpt,
    StepsOpt,
    TasksOpt,
    run_path,
)
from maml_cli.cli.run_commands import open_for_command

OneRunArg = Annotated[
    Path,
    typer.Argument(
        parser=run_path,
        metavar="RUN",
        help="A run directory, a .pt file, a published run or latest.",
        autocompletion=complete_run,
    ),
]
OtherRunArg = Annotated[
    Path,
    typer.Argument(parser=run_path, metavar="OTHER", help="The run to compare it with.", autocompletion=complete_run),
]


def diff(
    left: OneRunArg,
    right: OtherRunArg,
    tasks: TasksOpt = 10_000,
    shots: ShotsOpt = None,
    steps: StepsOpt = None,
    seed: SeedOpt = 0,
    any_family: AnyFamilyOpt = False,
    device: DeviceOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Show where two runs differ: keys of their configs, and errors on the same test tasks.

    The difference of errors is taken task by task, as by maml compare, each run after the inner steps it was trained
    for, or both after --steps. Runs of different task families, or without a common K, differ in their keys only, and
    a note says so.

    [bold]Examples[/]

      maml diff outputs/quickstart outputs/mine
      maml diff latest:2 latest --steps 5
    """
    from maml_cli.documents import to_json
    from maml_cli.evaluation import Protocol, diff_runs
    from maml_cli.reporting import difference_document, print_difference
    from maml_cli.training import evaluation_progress

    runs = [open_for_command(path, None, device) for path in (left, right)]
    protocol = Protocol(tasks, shots.values if shots else (), steps, seed)
    with evaluation_progress() as on_tasks:
        difference = diff_runs(runs[0], runs[1], protocol, any_family=any_family, on_tasks=on_tasks)
    if as_json:
        typer.echo(to_json(difference_document(difference)))
    else:
        print_difference(difference)
