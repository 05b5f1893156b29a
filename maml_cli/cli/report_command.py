"""The command `maml report`: one HTML page about trained runs."""

from pathlib import Path
from typing import Annotated

import typer

from maml_cli.cli.completion import complete_run
from maml_cli.cli.exit_codes import print_path, writing
from maml_cli.cli.options import DeviceOpt, SeedOpt, ShotsOpt, StepsOpt, TasksOpt, choose_run_or_latest, run_path
from maml_cli.cli.parameters import path
from maml_cli.cli.run_commands import open_for_command
from maml_cli.errors import ConfigError

ReportRunsArg = Annotated[
    list[Path] | None,
    typer.Argument(
        parser=run_path,
        metavar="RUN...",
        help="Run directories, published runs, .pt files or latest.",
        autocompletion=complete_run,
    ),
]
PageOpt = Annotated[
    Path | None,
    typer.Option(
        "--out",
        parser=path,
        metavar="FILE",
        help="The page, .html; by default report.html in the run directory, or outputs/NAMES-report.html, with the "
        "names of several runs or of a published one.",
    ),
]


def report(
    runs: ReportRunsArg = None,
    out: PageOpt = None,
    tasks: TasksOpt = 10_000,
    shots: ShotsOpt = None,
    steps: StepsOpt = None,
    seed: SeedOpt = 0,
    device: DeviceOpt = None,
) -> None:
    """Write one HTML page about trained runs, with a playground in which their networks run.

    The page opens in any browser without a network: tables, learning curves, fits, alphas and the config; several
    runs side by side, with their differences task by task. In the playground support points are dragged, added and
    removed, and the network bends with them, after every inner step.

    [bold]Examples[/]

      maml report outputs/quickstart
      maml report outputs/quickstart outputs/mine --out both.html
    """
    from maml_cli.evaluation import Protocol, default_file
    from maml_cli.report import write_report
    from maml_cli.training import evaluation_progress

    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {out}: must end in .html")
    trained_runs = [open_for_command(run, None, device) for run in runs or [choose_run_or_latest(None, None)]]
    protocol = Protocol(tasks, shots.values if shots else (), steps, seed)
    file = out or default_file(trained_runs, "report.html")
    with writing("--out", out), evaluation_progress() as on_tasks:
        write_report(trained_runs, protocol, file, on_tasks=on_tasks)
    print_path(file)
