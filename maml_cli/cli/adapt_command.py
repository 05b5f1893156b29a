"""The command `maml adapt`: a trained run on points of the user's own."""

import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from maml_cli.cli.exit_codes import writing
from maml_cli.cli.figure_options import (
    FontSizeOpt,
    HeightOpt,
    StyleOpt,
    StyleOptions,
    TitleOpt,
    WidthOpt,
    XLabelOpt,
    YLabelOpt,
    check_file_format,
    figure_style,
)
from maml_cli.cli.options import CheckpointOpt, DeviceOpt, JsonOpt, RunArg, StepsOpt, choose_run
from maml_cli.cli.parameters import path
from maml_cli.cli.run_commands import open_for_command
from maml_cli.cli.text_files import STANDARD_STREAM, text_writer
from maml_cli.errors import ConfigError
from maml_cli.reporting.figure_style import FigureStyle

if TYPE_CHECKING:
    from maml_cli.adaptation import Grid, TableFit, TableSummary
    from maml_cli.evaluation import TableSession, TrainedRun

MAX_RANGE = 100_000
"""Largest number of inputs in the value of --range."""
MAX_JSON_PREDICTIONS = 100_000
"""Largest number of predictions in a JSON document; more are written to a file."""
NUM_PANELS = 6


class InputRange(NamedTuple):
    """Equally spaced inputs: the first, the last, and their number."""

    low: float
    high: float
    num_inputs: int


def input_range(text: str) -> InputRange:
    """A parser of LOW:HIGH:N."""
    with contextlib.suppress(ValueError):
        first, last, number = text.split(":")
        low, high, count = float(first), float(last), int(number)
        if math.isfinite(low) and math.isfinite(high) and low < high and 2 <= count <= MAX_RANGE:
            return InputRange(low, high, count)
    raise typer.BadParameter(f"{text}: must be LOW:HIGH:N, such as -5:5:100, with N from 2 to {MAX_RANGE:,}")


DataOpt = Annotated[
    Path | None,
    typer.Option(
        "--data",
        parser=path,
        metavar="FILE",
        help="A table of points with the columns x and y, and perhaps task (adapts to each) and split (support or "
        "query); - is standard input.",
    ),
]
XOpt = Annotated[str, typer.Option("--x", metavar="COLUMN", help="The column of inputs.")]
YOpt = Annotated[str, typer.Option("--y", metavar="COLUMN", help="The column of targets.")]
TaskColumnOpt = Annotated[
    str, typer.Option("--task", metavar="COLUMN", help="The column of tasks.", show_default=False)
]
AtOpt = Annotated[
    Path | None,
    typer.Option(
        "--at",
        parser=path,
        metavar="FILE",
        help="Predict at the inputs in this table; where it has targets as well, their error is reported.",
    ),
]
RangeOpt = Annotated[
    InputRange | None,
    typer.Option("--range", parser=input_range, metavar="LOW:HIGH:N", help="Predict at N equally spaced inputs."),
]
PredictionsOpt = Annotated[
    Path | None,
    typer.Option("--out", parser=path, metavar="FILE", help="Write the predictions as CSV; - is standard output."),
]
FitFigureOpt = Annotated[
    Path | None, typer.Option("--plot", parser=path, metavar="FILE", help="Draw the fits, as .png, .svg or .pdf.")
]
RescaleOpt = Annotated[
    bool, typer.Option("--rescale", help="Map x and y onto the trained ranges; predictions are mapped back.")
]


def adapt(
    run: RunArg = None,
    checkpoint: CheckpointOpt = None,
    data: DataOpt = None,
    x: XOpt = "x",
    y: YOpt = "y",
    task: TaskColumnOpt = "",
    steps: StepsOpt = None,
    at: AtOpt = None,
    at_range: RangeOpt = None,
    out: PredictionsOpt = None,
    figure: FitFigureOpt = None,
    width: WidthOpt = None,
    height: HeightOpt = None,
    font_size: FontSizeOpt = None,
    title: TitleOpt = None,
    x_label: XLabelOpt = None,
    y_label: YLabelOpt = None,
    style: StyleOpt = None,
    rescale: RescaleOpt = False,
    device: DeviceOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Adapt a trained run to points of your own and predict.

    The table has a column x and a column y, separated by commas, semicolons or tabs. The run adapts to all points of a
    task, or to those whose split is support, and reports its error before and after each inner step. Predictions are
    made at the same points, or at those of --at or --range. With several seeds they are the mean, with a 90 % band.
    Those of a run with inner.ridge.noise have a standard deviation.

    [bold]Examples[/]

      maml adapt best-5shot --data points.csv --plot fit.png
      maml adapt outputs/mine --data points.csv --range -5:5:100 --out fit.csv
      maml adapt outputs/mine --data days.csv --x hour --y celsius --task day
    """
    from maml_cli.evaluation import start_table
    from maml_cli.tables import Columns

    if data is None:
        raise ConfigError("--data: missing; give a table with the columns x and y, or - for standard input")
    if at is not None and at_range is not None:
        raise ConfigError(f"--at {at}, --range: give one of the two")
    if at == STANDARD_STREAM or (as_json and out == STANDARD_STREAM):
        raise ConfigError("--at, --out: - is for --data, or for --out without --json; give a file")
    if figure:
        check_file_format("--plot", figure)
    options = StyleOptions(width, height, font_size, title, x_label or x, y_label or y, style)
    look = figure_style(options) if figure else FigureStyle()
    trained_run = open_for_command(choose_run(run, checkpoint), None, device)
    source = None if data == STANDARD_STREAM else data
    session = start_table(
        trained_run, source, Columns(x, y, task), steps=steps, at=at, grid=_grid(at_range), rescale=rescale
    )
    _adapt(trained_run, session, out=out, figure=figure, style=look, rescale=rescale, as_json=as_json)


def _adapt(
    run: "TrainedRun",
    session: "TableSession",
    *,
    out: Path | None,
    figure: Path | None,
    style: FigureStyle,
    rescale: bool,
    as_json: bool,
) -> None:
    from maml_cli.documents import to_json
    from maml_cli.evaluation import range_warnings, scaling_note, summarise_table
    from maml_cli.messages import print_message
    from maml_cli.reporting.own_points import adapted_document, csv_header, csv_rows, draw_own_fits, print_adapted
    from maml_cli.training import count_progress

    first: list[TableFit] = []
    records: list[dict[str, object]] = []
    num_seeds, has_std = len(run.run_index), run.experiment.variance is not None
    with writing("--out", out), count_progress("adapting", "tasks") as on_count, text_writer(out) as write:
        write(csv_header(session.steps, has_tasks=session.has_tasks, num_seeds=num_seeds, has_std=has_std))

        def on_fit(fit: "TableFit", summary: "TableSummary") -> None:
            first.extend([] if first else [fit])
            write(csv_rows(fit, has_tasks=session.has_tasks))
            if as_json and out is None:
                _collect(records, fit)
            on_count(summary.num_tasks)

        summary = summarise_table(session, on_fit)
    for message in [*session.messages, *range_warnings(session, summary)]:
        print_message(message)
    try:
        if figure:
            with writing("--plot", figure):
                draw_own_fits(run, session, first[0], figure, most=NUM_PANELS, style=style)
    finally:  # a figure that cannot be written does not lose the numbers
        if as_json:
            typer.echo(to_json(adapted_document(run, session, summary, records, out=out, figure=figure)))
        else:
            print_adapted(
                summary,
                title=run.title,
                trained_steps=run.config.inner.steps,
                notes=[scaling_note(session.learner.scaling)] if rescale else [],
                to_stderr=out == STANDARD_STREAM,
            )
    for name, file in (("predictions", out), ("figure", figure)):
        if file is not None and file != STANDARD_STREAM:
            print_message(f"{name} written to {file}")


def _grid(values: InputRange | None) -> "Grid | None":
    from maml_cli.adaptation import equally_spaced

    return None if values is None else equally_spaced(*values)


def _collect(records: list[dict[str, object]], fit: "TableFit") -> None:
    from maml_cli.reporting.own_points import iter_predictions

    records.extend(iter_predictions(fit))
    if len(records) > MAX_JSON_PREDICTIONS:
        raise ConfigError(f"--json: more than {MAX_JSON_PREDICTIONS:,} predictions; give a file for them with --out")
