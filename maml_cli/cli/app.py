"""The command line: each command parses, calls one function, and prints. Heavy imports wait inside the commands."""

import io
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from maml_cli import __version__
from maml_cli.cli.config_commands import config_app, presets_app
from maml_cli.cli.exit_codes import exit_on_error
from maml_cli.cli.options import (
    CheckpointOpt,
    ConfigOpt,
    DeviceOpt,
    JsonOpt,
    ResumeOpt,
    RunOpt,
    RunsArg,
    SeedOpt,
    SetOpt,
    ShotsOpt,
    StepsOpt,
    TaskSetOpt,
    TasksOpt,
    complete_preset,
)

app = typer.Typer(
    name="maml",
    help="Meta-train small networks that learn a sinusoid from a few points (MAML), evaluate and draw them.\n\n"
    "Start with [bold]maml train[/]: under a minute, and it says what to run next.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(presets_app, name="presets")
app.add_typer(config_app, name="config")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(f"maml {__version__}")
        raise typer.Exit


@app.command()
def train(
    config: ConfigOpt = None,
    overrides: SetOpt = None,
    out: RunOpt = None,
    resume: ResumeOpt = None,
    device: DeviceOpt = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No messages and no progress, only errors.")] = False,
    as_json: JsonOpt = False,
) -> None:
    """Meta-train a network and keep its run directory, whose path is printed on stdout.

    [bold]Examples[/]

      maml train

      maml train --config finn-10shot --set outer.steps=20000 --set run.seed=1

      maml train --config mine.yaml --out outputs/mine --device cpu

      maml train --resume outputs/mine

    Ctrl-C saves a checkpoint first. A run that was interrupted and resumed ends with the same bytes.
    """
    from maml_cli.engines import choose_engine
    from maml_cli.experiment import choose_device
    from maml_cli.reporting import plan_dict, to_json, train_dict
    from maml_cli.training import plan_training, run_session, training_summary

    planned = plan_training(config, overrides or [], out=out, resume=resume, device=device)
    where = choose_device(planned.config, planned.device)
    engine = choose_engine(planned.config, where.device)
    if dry_run:
        text = "\n".join(
            [f"{planned.run_directory}: nothing written (--dry-run)", *training_summary(planned.config, where, engine)]
        )
        typer.echo(to_json(plan_dict(planned, where, engine)) if as_json else text)
        return
    launched = run_session(planned, where, engine, quiet=quiet)
    typer.echo(to_json(train_dict(launched)) if as_json else launched.run)
    if launched.exit_code:
        raise typer.Exit(launched.exit_code)


@app.command("eval")
def evaluate(
    checkpoint: CheckpointOpt,
    tasks: TasksOpt = 10_000,
    shots: ShotsOpt = None,
    steps: StepsOpt = None,
    overrides: TaskSetOpt = None,
    seed: SeedOpt = 0,
    device: DeviceOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Adapt a trained run to held-out test tasks and report its error after each inner step.

    The same seed gives the same tasks to every run, and training never sees them. Beside the errors stand what
    needs no meta-learning: zero, the best answer that does not adapt, the same network and steps from random
    initialisations, and least squares with the true frequency. In a run directory the result is kept as eval.json.

    [bold]Examples[/]

      maml eval --checkpoint outputs/quickstart

      maml eval --checkpoint outputs/quickstart --shots 5,10,20 --steps 10

      maml eval --checkpoint outputs/quickstart --set tasks.phase=[3.14159,6.28318]

      maml eval --checkpoint outputs/quickstart/checkpoints/step-00001000.pt --json
    """
    from maml_cli.evaluation import Protocol, evaluate_run, open_run, write_result
    from maml_cli.reporting import evaluation_document, print_evaluations, to_json
    from maml_cli.training import print_message

    counts = _counts(shots)
    opened = open_run(checkpoint, overrides=overrides or [], device=device)
    if opened.checkpoint.warning:
        print_message(opened.checkpoint.warning)
    protocol = Protocol(tasks, counts, steps, seed)
    evaluations = evaluate_run(opened, protocol)
    document = to_json(evaluation_document(opened, evaluations, overrides or []))
    kept = write_result(opened, document, protocol, overrides or [], out=None)
    if as_json:
        typer.echo(document)
    else:
        print_evaluations(evaluations, measure=opened.measure, title=opened.title)
    print_message(kept)


@app.command()
def plot(
    checkpoint: CheckpointOpt,
    kind: Annotated[
        Literal["fit", "curve", "steps", "alpha", "all"],
        typer.Option(
            help="fit: tasks before and after adapting; curve: losses over training; steps: error against inner "
            "steps; alpha: its trace."
        ),
    ] = "all",
    form: Annotated[Literal["png", "svg", "pdf"], typer.Option("--format", help="File format.")] = "png",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to put the files; by default plots/ of the run.")
    ] = None,
    tasks: TasksOpt = 10_000,
    shots: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Support points; by default as trained.")
    ] = None,
    steps: StepsOpt = None,
    overrides: TaskSetOpt = None,
    seed: SeedOpt = 0,
) -> None:
    """Draw a trained run; the paths of the files are printed on stdout.

    [bold]Examples[/]

      maml plot --checkpoint outputs/quickstart

      maml plot --checkpoint outputs/quickstart --kind fit --format pdf --steps 5

      maml plot --checkpoint outputs/quickstart --kind fit --set tasks.phase=3.14159 --out figures
    """
    from maml_cli.evaluation import Protocol, open_run
    from maml_cli.reporting.run_figures import KINDS, draw, drawable
    from maml_cli.training import print_message

    opened = open_run(checkpoint, overrides=overrides or [])
    if opened.checkpoint.warning:
        print_message(opened.checkpoint.warning)
    kinds = drawable(opened) if kind == "all" else [kind]
    for left_out in [name for name in KINDS if kind == "all" and name not in kinds]:
        typer.echo(f"{left_out}: left out, there is no metrics.jsonl around the checkpoint", err=True)
    protocol = Protocol(tasks, (shots,) if shots else (), steps, seed)
    for file in draw(opened, protocol, kinds=kinds, form=form, out=out):
        typer.echo(file)


@app.command()
def compare(
    runs: RunsArg,
    tasks: TasksOpt = 10_000,
    shots: ShotsOpt = None,
    steps: StepsOpt = None,
    seed: SeedOpt = 0,
    any_family: Annotated[
        bool, typer.Option("--any-family", help="Compare runs of different task families, on the tasks of the first.")
    ] = False,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The figure: .png, .svg or .pdf; with several K, one each.")
    ] = Path("outputs/compare.png"),
    device: DeviceOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Compare runs on the same test tasks: errors side by side, and differences task by task.

    Every run adapts to the same points of the same tasks; the difference from the first run is taken on each task, so
    that its interval says whether it is more than chance. Each is compared after the inner steps it was trained for,
    or all after --steps.

    [bold]Examples[/]

      maml compare outputs/quickstart outputs/mine

      maml compare outputs/quickstart outputs/mine --shots 5,10 --steps 5 --out compare.pdf
    """
    from maml_cli.evaluation import Protocol, compare_runs, open_run
    from maml_cli.reporting import comparison_document, print_comparisons, to_json
    from maml_cli.reporting.run_figures import draw_comparison
    from maml_cli.training import print_message

    if len(runs) < 2:
        raise typer.BadParameter("give two runs or more.", param_hint="RUN")
    if out.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter(f"{out}: must end in .png, .svg or .pdf.", param_hint="--out")
    opened = [open_run(run, device=device) for run in runs]
    for note in [one.checkpoint.warning for one in opened if one.checkpoint.warning]:
        print_message(note)
    compared = compare_runs(opened, Protocol(tasks, _counts(shots), steps, seed), any_family=any_family)
    try:
        figures, words = (drawn := draw_comparison(compared, out)), f"drawn as {', '.join(map(str, drawn))}"
    except OSError as error:  # the numbers are not lost with it
        figures, words = [], f"not drawn: {error.filename or out}: {error.strerror or error}"
    if as_json:
        typer.echo(to_json(comparison_document(compared, figures)))
    else:
        print_comparisons(compared)
    print_message(words)


@app.command()
def check(
    config: Annotated[
        str,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE|PRESET",
            help="The learner to check.",
            autocompletion=complete_preset,
        ),
    ] = "quickstart",
    overrides: SetOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Prove the gradients on this machine: is it really second order?

    Worked examples solved by hand, computed through the same inner loop as training; then the configured learner
    (in float64, with tanh for relu and mse for l1; for implicit gradients narrower and convex) against finite
    differences and against an independent implementation with torch.func. Exits with 1 if anything is off.

    [bold]Examples[/]

      maml check

      maml check --config finn-10shot --set inner.steps=5 --json
    """
    from maml_cli.checks import run_checks
    from maml_cli.config import load_config
    from maml_cli.reporting import case_dict, print_cases, to_json

    cases = run_checks(load_config(config, overrides or []).config)
    passed = all(case.passed for case in cases)
    if as_json:
        typer.echo(to_json({"passed": passed, "cases": [case_dict(case) for case in cases]}))
    else:
        print_cases(cases)
    if not passed:
        raise typer.Exit(1)


@app.command()
def info(as_json: JsonOpt = False) -> None:
    """Print versions, devices, threads and the CPU's capability: what a bug report needs."""
    from maml_cli.reporting import to_json
    from maml_cli.runtime import machine_info as facts

    if as_json:
        typer.echo(to_json(dict(facts())))
        return
    for name, value in facts().items():
        typer.echo(f"{name:15} {value}")


def main(arguments: list[str] | None = None) -> None:
    """Run `maml`; every mistake of the user's becomes a message on stderr and an exit code."""
    if sys.stderr is None:  # closed: say nothing, rather than on stdout
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if arguments is None and sys.argv[1:2] != ["train"] and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `maml eval ... | head -1` ends as other commands do
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± or arrows shows ? for them
    with exit_on_error():
        app(arguments, prog_name="maml")


def _counts(text: str | None) -> tuple[int, ...]:
    """`5,10,20` as numbers."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= 100_000 for part in parts):
        message = f"{text!r}: give whole numbers from 1 to 100000, such as 5,10,20."
        raise typer.BadParameter(message, param_hint="--shots")
    return tuple(dict.fromkeys(int(part) for part in parts))
