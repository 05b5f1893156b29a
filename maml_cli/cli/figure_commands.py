"""The commands that draw: `maml plot` and `maml compare`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maml_cli.cli.exit_codes import print_path, writing
from maml_cli.cli.figure_options import (
    ALL,
    FontSizeOpt,
    FormatOpt,
    HeightOpt,
    KindOpt,
    Kinds,
    LabelOpt,
    StyleOpt,
    StyleOptions,
    TasksShownOpt,
    TitleOpt,
    WidthOpt,
    WithOpt,
    XLabelOpt,
    YLabelOpt,
    check_file_format,
    check_is_directory,
    figure_style,
    run_labels,
)
from maml_cli.cli.options import (
    AnyFamilyOpt,
    CheckpointOpt,
    DeviceOpt,
    FiguresOpt,
    JsonOpt,
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
from maml_cli.cli.run_commands import open_for_command
from maml_cli.errors import ConfigError
from maml_cli.reporting.figure_kinds import FIGURES, FILE_FORMATS
from maml_cli.reporting.format import list_in_words

if TYPE_CHECKING:
    from maml_cli.evaluation import TrainedRun

ComparisonFigureOpt = Annotated[
    Path | None,
    typer.Option(
        "--out",
        parser=path,
        metavar="FILE",
        help="The figure, .png, .svg or .pdf; with several K, one each. By default outputs/NAMES-compare.png, with the "
        "names of the runs.",
    ),
]


def plot(
    run: RunArg = None,
    checkpoint: CheckpointOpt = None,
    kind: KindOpt = None,
    file_format: FormatOpt = None,
    out: FiguresOpt = None,
    tasks: TasksOpt = 10_000,
    shots: OneShotOpt = None,
    steps: StepsOpt = None,
    show_steps: ShowStepsOpt = None,
    tasks_shown: TasksShownOpt = None,
    with_runs: WithOpt = None,
    labels: LabelOpt = None,
    overrides: TaskSetOpt = None,
    seed: SeedOpt = 0,
    width: WidthOpt = None,
    height: HeightOpt = None,
    font_size: FontSizeOpt = None,
    title: TitleOpt = None,
    x_label: XLabelOpt = None,
    y_label: YLabelOpt = None,
    style: StyleOpt = None,
) -> None:
    """Draw figures of a trained run; the paths of the files are printed on stdout.

    A checkpoint outside a run directory has no figures over outer steps. SVG has its text as text, PDF its fonts.

    [bold]Examples[/]

      maml plot outputs/quickstart
      maml plot outputs/quickstart --kind fit,tail --out figures
      maml plot outputs/quickstart --kind fit --steps 5 --show-steps 0,1,5
      maml plot outputs/quickstart --kind tail --width 3.3in --font-size 8
      maml plot outputs/quickstart --kind fit --with outputs/mine
      maml plot outputs/quickstart --kind adapt --steps 10 --style dark
    """
    from maml_cli.evaluation import Protocol
    from maml_cli.reporting.figure_request import FigureChoices
    from maml_cli.reporting.run_figures import draw
    from maml_cli.training import evaluation_progress

    chosen, others = choose_run_or_latest(run, checkpoint), with_runs or []
    options = StyleOptions(width, height, font_size, title, x_label, y_label, style)
    named = [*dict.fromkeys(name for names in kind or [Kinds((ALL,))] for name in names.names)]
    check_is_directory(out, named)
    _check_format(named, file_format)
    _check_kinds(named, options, others, labels or [])
    look = figure_style(options)
    names = run_labels(labels or [], [chosen, *others], example=f"{chosen}=TEXT")
    trained_run, *other_runs = (open_for_command(path, overrides, None) for path in (chosen, *others))
    kinds = _kinds_to_draw(trained_run, named)
    protocol = Protocol(tasks, (shots,) if shots else (), steps, seed)
    choices = FigureChoices(show_steps.values if show_steps else (), tasks_shown, other_runs, names, look)
    with writing("--out", out):
        with evaluation_progress() as on_tasks:
            files = draw(
                trained_run, protocol, kinds=kinds, file_format=file_format, out=out, choices=choices, on_tasks=on_tasks
            )
        for file in files:
            print_path(file)


def _kinds_to_draw(run: "TrainedRun", named: Sequence[str]) -> list[str]:
    """The kinds of figures of `named`, each once; messages say what is not drawn, and what of the log is not read."""
    from maml_cli.messages import print_message
    from maml_cli.reporting.run_figures import applicable, drawable, read_log

    kinds = [*dict.fromkeys(kind for name in named for kind in (drawable(run) if name == ALL else [name]))]
    if ALL in named:
        for name in (name for name in applicable(run) if FIGURES[name].needs_metrics and name not in kinds):
            print_message(f"{name}: not drawn: there is no metrics.jsonl around the checkpoint")
    needs_metrics = any(FIGURES[name].needs_metrics for name in kinds)
    if needs_metrics and "curve" in drawable(run) and (warning := read_log(run).warning):
        print_message(warning)
    return kinds


def compare(
    runs: RunsArg,
    tasks: TasksOpt = 10_000,
    shots: ShotsOpt = None,
    steps: StepsOpt = None,
    seed: SeedOpt = 0,
    any_family: AnyFamilyOpt = False,
    out: ComparisonFigureOpt = None,
    labels: LabelOpt = None,
    width: WidthOpt = None,
    height: HeightOpt = None,
    font_size: FontSizeOpt = None,
    title: TitleOpt = None,
    x_label: XLabelOpt = None,
    y_label: YLabelOpt = None,
    style: StyleOpt = None,
    device: DeviceOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Compare trained runs on the same test tasks: errors side by side, and differences task by task.

    Every run adapts to the same points of the same tasks. The difference from the first run is taken on each task, so
    that its interval says whether it is more than chance. Each run is compared after the inner steps it was trained
    for, or all after --steps. In the figure, runs whose configs differ in one number have colours in its order.

    [bold]Examples[/]

      maml compare outputs/quickstart outputs/mine
      maml compare outputs/quickstart outputs/mine --shots 5,10 --steps 5
      maml compare outputs/quickstart outputs/mine --style paper --label Finn
    """
    from maml_cli.documents import to_json
    from maml_cli.evaluation import Protocol, compare_runs, default_file, numeric_difference
    from maml_cli.messages import print_message
    from maml_cli.reporting import comparison_document, print_comparisons
    from maml_cli.reporting.comparison_figures import draw_comparison
    from maml_cli.training import evaluation_progress

    if len(runs) < 2:
        raise ConfigError(f"RUN {runs[0]}: give two runs or more to compare")
    if out is not None:
        check_file_format("--out", out)
    look = figure_style(StyleOptions(width, height, font_size, title, x_label, y_label, style))
    names = run_labels(labels or [], runs, example=f"{runs[0]}=TEXT")
    trained_runs = [open_for_command(run, None, device) for run in runs]
    file = out or default_file(trained_runs, "compare.png")
    trained_runs = [run._replace(name=name or run.name) for run, name in zip(trained_runs, names, strict=True)]
    protocol = Protocol(tasks, shots.values if shots else (), steps, seed)
    with evaluation_progress() as on_tasks:
        comparisons = compare_runs(trained_runs, protocol, any_family=any_family, on_tasks=on_tasks)
    figures: list[Path] = []
    try:
        with writing("--out", out):
            figures = draw_comparison(
                comparisons, file, labels=names, difference=numeric_difference(trained_runs), style=look
            )
    finally:  # a figure that cannot be written does not lose the numbers
        if as_json:
            typer.echo(to_json(comparison_document(comparisons, figures)))
        else:
            print_comparisons(comparisons)
    print_message(f"drawn as {', '.join(map(str, figures))}")


def _check_format(kinds: Sequence[str], file_format: str | None) -> None:
    """Raises ConfigError for a format that one of the kinds does not have, or that this machine lacks a program for."""
    if file_format is None:
        return
    for kind in kinds:
        formats = FILE_FORMATS if kind == ALL else FIGURES[kind].formats
        if file_format not in formats:
            hint = f" for --kind {kind}" if kind == "adapt" or len(kinds) > 1 else ""
            raise ConfigError(f"--format {file_format}: must be {list_in_words([*formats])}{hint}")
    if file_format == "mp4":
        from maml_cli.reporting.animation import check_format

        check_format(file_format)


def _check_kinds(kinds: Sequence[str], options: StyleOptions, others: Sequence[Path], labels: Sequence[str]) -> None:
    """Raises ConfigError for options of a single figure, or of fits, together with other kinds."""
    if others and [*kinds] != ["fit"]:
        raise ConfigError(f"--with {others[0]}: is for --kind fit, which draws a row for each run")
    if labels and not others:
        raise ConfigError(f"--label {labels[0]}: is for the runs of --with; for one run give --title")
    for option, text in (("--x-label", options.x_label), ("--y-label", options.y_label), ("--title", options.title)):
        if text and (len(kinds) > 1 or ALL in kinds):
            raise ConfigError(f"{option} {text}: is for one figure; give its --kind")
