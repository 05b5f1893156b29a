"""The commands `maml sweep` and `maml sweep show`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maml_cli.cli.commands import Group
from maml_cli.cli.exit_codes import print_path, writing
from maml_cli.cli.options import ConfigOpt, JsonOpt, SetOpt, reflow, register
from maml_cli.cli.parameters import path, whole_number
from maml_cli.cli.text_files import STANDARD_STREAM, text_writer
from maml_cli.errors import ConfigError
from maml_cli.extras import require
from maml_cli.messages import quoted
from maml_cli.reporting.figure_kinds import FILE_FORMATS
from maml_cli.reporting.format import list_in_words

if TYPE_CHECKING:
    from maml_cli.sweeps import Sweep, TrialRow

HELP = """Train a config for many values of its keys: all combinations, or as many as a sampler chooses.

Each trial is a run directory in that of the sweep, and its error is the mean over seeds of its last validation error.
Trials of a sampler (TPE) are stopped early if they are worse than the median. The same command, in any number of
processes, joins a sweep or continues one that was stopped: each trial is trained once, and the run of a process that
died is resumed. The path of the sweep is printed on stdout. Needs Optuna: pip install 'maml-cli\\[sweep]'.

[bold]Examples[/]

  maml sweep --config smoke --grid inner.alpha.init=0.003,0.01 --grid inner.steps=1,5
  maml sweep --config smoke --grid 'model.hidden=[40,40],[80,80]' --set run.seeds=5
  maml sweep --config smoke --trials 20 --range inner.alpha.init=1e-3..1e-1:log
  maml sweep --resume outputs/smoke-sweep
  maml sweep show outputs/smoke-sweep
"""

sweep_app = typer.Typer(
    cls=Group, help=reflow(HELP), invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
StorageOpt = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="MAML_SWEEP_STORAGE",
        help="A database that machines share, postgresql://, mysql:// or redis://; by default a file in the directory.",
    ),
]


ResumedSweepOpt = Annotated[
    Path | None, typer.Option("--resume", parser=path, metavar="DIR", help="Continue or join the sweep in DIR.")
]


@sweep_app.callback()
def _sweep(
    context: typer.Context,
    config: ConfigOpt = None,
    grid: Annotated[
        list[str] | None,
        typer.Option("--grid", "-g", metavar="KEY=V,V,...", help="Train all of these values; may be repeated."),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", parser=whole_number(1, 10_000), metavar="N", help="Number of trials of a sampler."),
    ] = None,
    ranges: Annotated[
        list[str] | None,
        typer.Option("--range", metavar="KEY=LOW..HIGH[:log]", help="Sample between the two; may be repeated."),
    ] = None,
    choose: Annotated[
        list[str] | None,
        typer.Option("--choose", metavar="KEY=V,V,...", help="Sample one of these values; may be repeated."),
    ] = None,
    overrides: SetOpt = None,
    seed: Annotated[int, typer.Option("--seed", parser=whole_number(0), metavar="N", help="Seed of the sampler.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=path, metavar="DIR", help="The directory; by default outputs/NAME-sweep."),
    ] = None,
    resume: ResumedSweepOpt = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", parser=whole_number(1, 256), metavar="N", help="Processes on this machine.")
    ] = 1,
    storage: StorageOpt = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No messages, only errors.")] = False,
    worker: Annotated[bool, typer.Option("--worker", hidden=True)] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    from maml_cli.sweeps import plan_sweep, read_space, read_sweep

    require("optuna", "Optuna", extra="sweep", user="maml sweep")
    if storage:
        from maml_cli.sweeps import check_storage_url

        check_storage_url(storage)
    if resume is not None:
        if config or grid or trials or ranges or choose or overrides or out:
            raise ConfigError("--resume: a sweep keeps its config and space; leave out all but --jobs and --storage")
        sweep = read_sweep(resume)
    else:
        space = read_space(grid=grid or [], ranges=ranges or [], choose=choose or [], trials=trials, seed=seed)
        sweep = plan_sweep(config, overrides or [], space, out=out, storage=storage)
    _run(sweep, storage, jobs, quiet=quiet, is_worker=worker)


def _run(sweep: "Sweep", url: str | None, jobs: int, *, quiet: bool, is_worker: bool) -> None:
    """Train the trials that are left, by `jobs` processes, and report the best."""
    from maml_cli.errors import InterruptedRun
    from maml_cli.messages import print_message
    from maml_cli.reporting import observe_training
    from maml_cli.sweeps import open_store, open_sweep, read_rows, run_jobs, work
    from maml_cli.training import require_packages

    def notify(text: str) -> None:
        if not quiet:
            print_message(text)

    require_packages(sweep.config)
    sweep, is_new = open_sweep(sweep)
    store = open_store(sweep, url)
    if not is_worker:
        ended = sum(row.is_ended for row in read_rows(sweep, store))
        state = "new sweep" if is_new else f"joined, {ended:,} trials have ended"
        notify(f"{sweep.directory}: {state}, {sweep.space.num_trials:,} in all")
    try:
        exit_code = run_jobs(sweep, jobs, url, quiet=quiet) if jobs > 1 else 0
        exit_code = exit_code or work(sweep, store, on_trial=notify, observe=observe_training)
    except InterruptedRun as error:
        exit_code = error.exit_code
    except KeyboardInterrupt:  # between two trials
        exit_code = InterruptedRun().exit_code
    if is_worker:
        raise typer.Exit(exit_code)
    if exit_code:
        print_message(f"{sweep.directory}: stopped; continue with: maml sweep --resume {quoted(sweep.directory)}")
    else:
        _report(sweep, read_rows(sweep, store), notify)
    print_path(sweep.directory)
    if exit_code:
        raise InterruptedRun(exit_code=exit_code)


def _report(sweep: "Sweep", rows: "list[TrialRow]", notify: Callable[[str], None]) -> None:
    from maml_cli.reporting import draw_sweep, format_short

    unfinished = sum(not row.is_ended for row in rows)
    if unfinished:
        notify(f"{sweep.directory}: {unfinished:,} trials are trained by other processes")
    if rows[0].is_ranked:
        values = ", ".join(f"{key}={value}" for key, value in rows[0].values.items())
        error = format_short(rows[0].error or 0.0)
        notify(f"best: trial {rows[0].number} ({values}): validation {sweep.config.measure.upper()} {error}")
        if not unfinished:
            files = draw_sweep(sweep, rows, sweep.directory / "plots" / "errors.png")
            notify(f"drawn as {', '.join(map(str, files))}")
    notify(f"next: maml sweep show {quoted(sweep.directory)}")


def show(
    directory: Annotated[Path, typer.Argument(parser=path, metavar="DIR", help="The directory of a sweep.")],
    csv: Annotated[
        Path | None, typer.Option("--csv", parser=path, metavar="FILE", help="Write the table as CSV; - for stdout.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            parser=path,
            metavar="FILE",
            help="Draw the errors by key, .png, .svg or .pdf; with two keys or more, also FILE-parallel.",
        ),
    ] = None,
    storage: StorageOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Print the trials of a sweep, the best first, whether it has ended or not.

    [bold]Examples[/]

      maml sweep show outputs/smoke-sweep
      maml sweep show outputs/smoke-sweep --csv sweep.csv --plot sweep.png
      maml sweep show outputs/smoke-sweep --json
    """
    from maml_cli.sweeps import open_store, read_rows, read_sweep

    require("optuna", "Optuna", extra="sweep", user="maml sweep")
    if plot is not None and plot.suffix.lower().removeprefix(".") not in FILE_FORMATS:
        raise ConfigError(f"--plot {plot}: must end in {list_in_words([f'.{name}' for name in FILE_FORMATS])}")
    if csv == STANDARD_STREAM and as_json:
        raise ConfigError("--csv -: standard output has the JSON document; give a file")
    sweep = read_sweep(directory)
    rows = read_rows(sweep, open_store(sweep, storage))
    _write(sweep, rows, csv, plot, as_json=as_json)


def _write(sweep: "Sweep", rows: "list[TrialRow]", csv: Path | None, plot: Path | None, *, as_json: bool) -> None:
    from maml_cli.documents import to_json
    from maml_cli.messages import print_message
    from maml_cli.reporting import draw_sweep, iter_sweep_csv, print_sweep, sweep_document

    try:
        with writing("--csv", csv), text_writer(csv) as write:
            for line in iter_sweep_csv(sweep, rows):
                write(line)
        if plot is not None:
            with writing("--plot", plot):
                files = draw_sweep(sweep, rows, plot)
            print_message(f"drawn as {', '.join(map(str, files))}" if files else "no trial has an error yet: not drawn")
    finally:  # a file that cannot be written does not lose the numbers
        if as_json:
            typer.echo(to_json(sweep_document(sweep, rows)))
        elif csv != STANDARD_STREAM:
            print_sweep(sweep, rows)


register(sweep_app, show, name="show")
