"""The commands about trained runs: `maml eval`, `maml plot` and `maml compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maml_cli.cli.exit_codes import print_path, writing
from maml_cli.cli.options import (
    FILE_FORMATS,
    AnyFamilyOpt,
    CheckpointOpt,
    Device,
    DeviceOpt,
    FiguresOpt,
    FormatOpt,
    JsonOpt,
    KindOpt,
    OneShotOpt,
    RunArg,
    RunsArg,
    SeedOpt,
    ShotsOpt,
    ShowStepsOpt,
    StepsOpt,
    TaskSetOpt,
    TasksOpt,
    choose_run_or_latest,
)
from maml_cli.cli.parameters import path
from maml_cli.cli.text_files import STANDARD_STREAM, text_writer
from maml_cli.errors import ConfigError
from maml_cli.reporting.figure_kinds import FIGURES
from maml_cli.reporting.format import list_in_words

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
    from maml_cli.evaluation import Protocol, evaluate_run, write_result
    from maml_cli.reporting import iter_task_csv, print_evaluations, to_json
    from maml_cli.training import evaluation_progress, print_message

    if per_task == STANDARD_STREAM:
        raise ConfigError("--per-task -: give a file; standard output has the results")
    trained_run = open_for_command(choose_run_or_latest(run, checkpoint), overrides, device)
    protocol = Protocol(tasks, shots.values if shots else (), steps, seed, noisy_targets)
    with evaluation_progress() as on_tasks:
        result = evaluate_run(trained_run, protocol, keep_tasks=per_task is not None, on_tasks=on_tasks)
    document = to_json(result.to_dict())
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


def plot(
    run: RunArg = None,
    checkpoint: CheckpointOpt = None,
    kind: KindOpt = "all",
    file_format: FormatOpt = "png",
    out: FiguresOpt = None,
    tasks: TasksOpt = 10_000,
    shots: OneShotOpt = None,
    steps: StepsOpt = None,
    show_steps: ShowStepsOpt = None,
    overrides: TaskSetOpt = None,
    seed: SeedOpt = 0,
) -> None:
    """Draw figures of a trained run; the paths of the files are printed on stdout.

    A checkpoint outside a run directory has no figures over outer steps.

    [bold]Examples[/]

      maml plot outputs/quickstart
      maml plot outputs/quickstart --kind fit --steps 5 --show-steps 0,1,5
      maml plot outputs/quickstart --set 'tasks.phase=[0,1]' --out figures
    """
    from maml_cli.evaluation import Protocol
    from maml_cli.reporting.run_figures import draw, drawable, read_log
    from maml_cli.training import evaluation_progress, print_message

    trained_run = open_for_command(choose_run_or_latest(run, checkpoint), overrides, None)
    kinds = drawable(trained_run) if kind == "all" else [kind]
    if kind == "all":
        for name in (name for name in FIGURES if name not in kinds):
            print_message(f"{name}: not drawn: there is no metrics.jsonl around the checkpoint")
    needs_metrics = any(FIGURES[name].needs_metrics for name in kinds)
    if needs_metrics and "curve" in drawable(trained_run) and (warning := read_log(trained_run).warning):
        print_message(warning)
    protocol = Protocol(tasks, (shots,) if shots else (), steps, seed)
    shown = show_steps.values if show_steps else ()
    options = {"kinds": kinds, "file_format": file_format, "out": out, "show_steps": shown}
    with writing("--out", out):
        with evaluation_progress() as on_tasks:
            files = draw(trained_run, protocol, **options, on_tasks=on_tasks)  # type: ignore[arg-type]
        for file in files:
            print_path(file)


def compare(
    runs: RunsArg,
    tasks: TasksOpt = 10_000,
    shots: ShotsOpt = None,
    steps: StepsOpt = None,
    seed: SeedOpt = 0,
    any_family: AnyFamilyOpt = False,
    out: Annotated[
        Path,
        typer.Option(
            "--out", parser=path, metavar="FILE", help="The figure, .png, .svg or .pdf; with several K, one each."
        ),
    ] = Path("outputs/compare.png"),
    device: DeviceOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Compare trained runs on the same test tasks: errors side by side, and differences task by task.

    Every run adapts to the same points of the same tasks. The difference from the first run is taken on each task, so
    that its interval says whether it is more than chance. Each run is compared after the inner steps it was trained
    for, or all after --steps.

    [bold]Examples[/]

      maml compare outputs/quickstart outputs/mine
      maml compare outputs/quickstart outputs/mine --shots 5,10 --steps 5
    """
    from maml_cli.evaluation import Protocol, compare_runs
    from maml_cli.reporting import comparison_document, print_comparisons, to_json
    from maml_cli.reporting.run_figures import draw_comparison
    from maml_cli.training import evaluation_progress, print_message

    if len(runs) < 2:
        raise ConfigError(f"RUN {runs[0]}: give two runs or more to compare")
    if out.suffix.lower().removeprefix(".") not in FILE_FORMATS:
        raise ConfigError(f"--out {out}: must end in {list_in_words([f'.{name}' for name in FILE_FORMATS])}")
    trained_runs = [open_for_command(run, None, device) for run in runs]
    protocol = Protocol(tasks, shots.values if shots else (), steps, seed)
    with evaluation_progress() as on_tasks:
        comparisons = compare_runs(trained_runs, protocol, any_family=any_family, on_tasks=on_tasks)
    figures: list[Path] = []
    try:
        with writing("--out", out):
            figures = draw_comparison(comparisons, out)
    finally:  # a figure that cannot be written does not lose the numbers
        if as_json:
            typer.echo(to_json(comparison_document(comparisons, figures)))
        else:
            print_comparisons(comparisons)
    print_message(f"drawn as {', '.join(map(str, figures))}")


def open_for_command(path: Path, overrides: list[str] | None, device: Device | None) -> "TrainedRun":
    """The trained run at `path`, in a process with as many threads as its config says; a warning about its files goes
    to stderr."""
    from maml_cli.evaluation import open_run
    from maml_cli.runtime import keep_freed_memory, set_threads
    from maml_cli.training import print_message

    run = open_run(path, overrides=overrides or [], device=device)
    # More threads than free cores wait for one another: ten times slower than one thread on a busy machine.
    set_threads(run.config.run.threads)
    keep_freed_memory()
    for warning in run.checkpoint.warnings:
        print_message(warning)
    return run
