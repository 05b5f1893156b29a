"""The command `maml train`."""

import contextlib
import signal
from typing import Annotated

import typer

from maml_cli.cli.exit_codes import print_path
from maml_cli.cli.options import ConfigOpt, DeviceOpt, InitOpt, JsonOpt, ResumeOpt, RunDirOpt, SetOpt
from maml_cli.errors import InterruptedRun, printable
from maml_cli.messages import quoted, wrapped


def train(
    config: ConfigOpt = None,
    overrides: SetOpt = None,
    out: RunDirOpt = None,
    resume: ResumeOpt = None,
    init: InitOpt = None,
    device: DeviceOpt = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan of the training; write nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No messages and no progress, only errors.")] = False,
    as_json: JsonOpt = False,
) -> None:
    """Meta-train a network into a run directory, whose path is printed on stdout.

    Ctrl-C saves a checkpoint first. A run that was interrupted and resumed ends with the same bytes.

    [bold]Examples[/]

      maml train
      maml train --config finn-10shot --set outer.steps=20000 --set run.seed=1
      maml train --config mine.yaml --out outputs/mine --device cpu
      maml train --config mine.yaml --init outputs/mine
      maml train --resume outputs/mine
      maml train --resume outputs/mine --set outer.steps=40000
    """
    from maml_cli.documents import to_json
    from maml_cli.engines import compile_ahead
    from maml_cli.interrupts import stop_signals_exit
    from maml_cli.messages import print_message

    with contextlib.ExitStack() as stack:
        stack.enter_context(stop_signals_exit())
        if not (dry_run or resume):
            compile_ahead(config, overrides or [], device=device)  # while these are imported:

        from maml_cli.reporting import observe_training, plan_document, training_document
        from maml_cli.training import join_processes, plan_training, run_session

        processes = stack.enter_context(join_processes())
        plan = plan_training(
            config, overrides or [], out=out, resume=resume, device=device, init=init, processes=processes
        )
        if dry_run:
            if processes.is_leader:
                lines = [
                    f"{plan.run_directory}: nothing written (--dry-run)",
                    *plan.summary(),
                ]
                typer.echo(to_json(plan_document(plan)) if as_json else "\n".join(map(wrapped, map(printable, lines))))
            return
        session = run_session(plan, quiet=quiet, processes=processes, observe=observe_training)
    if session.exit_code and processes.is_leader:
        name = signal.Signals(session.result.stopped_by).name
        print_message(f"stopped by {name}; checkpoint saved. Resume with: maml train --resume {quoted(session.run)}")
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the run is complete: `maml train | head -1` ends as others do
    if processes.is_leader:
        if as_json:
            typer.echo(to_json(training_document(session)))
        else:
            print_path(session.run)
    if session.exit_code:
        raise InterruptedRun(exit_code=session.exit_code)
