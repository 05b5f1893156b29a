"""The command `maml eval`, and the opening of trained runs for all commands about them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maml_cli.cli.exit_codes import writing
from maml_cli.cli.options import (
    CheckpointOpt,
    Device,
    DeviceOpt,
    JsonOpt,
    RunArg,
    SeedOpt,
    ShotsOpt,
    StepsOpt,
    TaskSetOpt,
    TasksOpt,
    choose_run_or_latest,
)
from maml_cli.cli.parameters import path
from maml_cli.cli.text_files import STANDARD_STREAM, text_writer
from maml_cli.errors import ConfigError

if TYPE_CHECKING:
    from maml_cli.evaluation import TrainedRun


PerTaskOpt = Annotated[
    Path | None,
    typer.Option(
        "--per-task",
        parser=path,
        metavar="FILE",
        help="Write a table, CSV: the parameters of each test task, and its error after each inner step.",
    ),
]
NoisyTargetsOpt = Annotated[
    bool,
    typer.Option("--noisy-targets", help="Errors against targets with the noise of the tasks, as in some papers."),
]


def evaluate(
    run: RunArg = None,
    checkpoint: CheckpointOpt = None,
    tasks: TasksOpt = 10_000,
    shots: ShotsOpt = None,
    steps: StepsOpt = None,
    overrides: TaskSetOpt = None,
    seed: SeedOpt = 0,
    device: DeviceOpt = None,
    out: Annotated[
        Path | None, typer.Option("--out", parser=path, metavar="FILE", help="Write the JSON document to FILE.")
    ] = None,
    per_task: PerTaskOpt = None,
    noisy_targets: NoisyTargetsOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Adapt a trained run to held-out test tasks and report its error after each inner step.

    The same seed gives the same tasks to every run, and training never sees them. The baselines need no
    meta-learning: zero, the best prediction that does not adapt, the same network and inner steps from random
    initialisations, and least squares with the true frequency. A second table has percentiles and the worst tasks;
    mixtures have one by kind of task, and several seeds one of their mean prediction.

    [bold]Examples[/]

      maml eval
      maml eval outputs/quickstart
      maml eval outputs/quickstart --shots 5,10,20 --steps 10
      maml eval outputs/quickstart --set 'tasks.phase=[3.14,6.28]'
      maml eval outputs/quickstart --set inner.alpha.scale=0.5
      maml eval outputs/quickstart --per-task tasks.csv
      maml eval outputs/quickstart/checkpoints/step-00001000.pt --json
    """
    from maml_cli.documents import to_json
    from maml_cli.evaluation import Protocol, evaluate_run, write_result
    from maml_cli.messages import print_message
    from maml_cli.reporting import iter_task_csv, print_evaluations
    from maml_cli.training import evaluation_progress

    if per_task == STANDARD_STREAM:
        raise ConfigError("--per-task -: give a file; standard output has the results")
    trained_run = open_for_command(choose_run_or_latest(run, checkpoint), overrides, device)
    protocol = Protocol(tasks, shots.values if shots else (), steps, seed, noisy_targets)
    with evaluation_progress() as on_tasks:
        result = evaluate_run(trained_run, protocol, keep_tasks=per_task is not None, on_tasks=on_tasks)
    document = to_json(result.to_document())
    try:  # before printing: `maml eval ... | head -1` ends this process once its output is not read
        with writing("--out", out):
            note = write_result(trained_run, document, protocol, out)
        with writing("--per-task", per_task), text_writer(per_task) as write:
            for lines in iter_task_csv(result) if per_task else ():
                write(lines)
    finally:  # a file that cannot be written does not lose the numbers
        if as_json:
            typer.echo(document)
        else:
            print_evaluations(result.results, measure=trained_run.measure, title=trained_run.title)
    print_message(note)
    if per_task:
        print_message(f"errors of single tasks written to {per_task}")


def open_for_command(path: Path, overrides: list[str] | None, device: Device | None) -> "TrainedRun":
    """The trained run at `path`, in a process with as many threads as its config says; a warning about its files goes
    to stderr."""
    from maml_cli.evaluation import open_run
    from maml_cli.messages import print_message
    from maml_cli.runtime import keep_freed_memory, set_threads

    run = open_run(path, overrides=overrides or [], device=device)
    # More threads than free cores wait for one another: ten times slower than one thread on a busy machine.
    set_threads(run.config.run.threads)
    keep_freed_memory()
    for warning in run.checkpoint.warnings:
        print_message(warning)
    return run
