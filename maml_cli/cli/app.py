"""The command line: the commands of `maml`, and its entry point. Heavy imports wait inside the commands."""

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Annotated

import typer

from maml_cli import __version__
from maml_cli.cli.adapt_command import adapt
from maml_cli.cli.clean_command import clean
from maml_cli.cli.completion import words_of_shell
from maml_cli.cli.config_commands import config_app, presets_app
from maml_cli.cli.diff_command import diff
from maml_cli.cli.exit_codes import discard_unwritten, exit_on_error
from maml_cli.cli.export_commands import export_app
from maml_cli.cli.figure_commands import compare, plot
from maml_cli.cli.init_command import init
from maml_cli.cli.machine_commands import check, info
from maml_cli.cli.options import register
from maml_cli.cli.report_command import report
from maml_cli.cli.run_commands import evaluate
from maml_cli.cli.runs_command import runs
from maml_cli.cli.schema_command import schema
from maml_cli.cli.sweep_command import sweep_app
from maml_cli.cli.train_command import train
from maml_cli.interrupts import exit_on_interrupt

app = typer.Typer(
    name="maml",
    help="Meta-train small networks that learn a sinusoid from a few points (MAML), evaluate and draw them.\n\n"
    "Start with [bold]maml train[/]: it takes under a minute and prints the next command.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
register(app, train)
register(app, init)
register(app, evaluate, name="eval")
register(app, adapt)
register(app, plot)
register(app, compare)
register(app, diff)
register(app, runs)
register(app, clean)
register(app, report)
register(app, check)
register(app, info)
register(app, schema)
app.add_typer(export_app, name="export")
app.add_typer(sweep_app, name="sweep")
app.add_typer(presets_app, name="presets")
app.add_typer(config_app, name="config")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(f"maml {__version__}")
        raise typer.Exit


@contextlib.contextmanager
def _own_sigpipe() -> Iterator[None]:
    """Restore the handler of SIGPIPE, which commands change, for a program that calls `main` and goes on."""
    previous = signal.getsignal(signal.SIGPIPE) if hasattr(signal, "SIGPIPE") else None
    try:
        yield
    finally:
        if previous is not None and threading.current_thread() is threading.main_thread():
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGPIPE, previous)


def main(arguments: list[str] | None = None) -> None:
    """Run `maml`; every mistake of the user's becomes a message on stderr and an exit code."""
    # A closed stream prints nothing, and its messages do not reach the other one.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if arguments is None and sys.argv[1:2] != ["train"] and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `maml eval ... | head -1` ends as other commands do
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)  # a table keeps its columns: ? for ± in an encoding without it
    is_last = arguments is None
    interruptible = exit_on_interrupt(sys.argv[1:] if arguments is None else arguments, is_last=is_last)
    contexts = words_of_shell() if is_last else _own_sigpipe()
    with discard_unwritten(), contexts, exit_on_error(), interruptible:
        exit_code = app(arguments, prog_name="maml", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(exit_code or 0)
