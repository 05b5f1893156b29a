"""The commands `maml export metrics` and `maml export params`: trained runs for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from maml_cli.cli.completion import complete_words
from maml_cli.cli.exit_codes import print_path, writing
from maml_cli.cli.options import CheckpointOpt, JsonOpt, RunArg, choose_run, register
from maml_cli.cli.parameters import one_of, path, whole_number
from maml_cli.cli.run_commands import open_for_command
from maml_cli.cli.text_files import STANDARD_STREAM, text_writer
from maml_cli.errors import ConfigError, FileError
from maml_cli.reporting.csv_text import csv_text
from maml_cli.reporting.format import list_in_words

export_app = typer.Typer(help="Write a run's metrics or parameters for other programs.", no_args_is_help=True)


SUFFIXES = {"safetensors": ".safetensors", "npz": ".npz", "torch": ".pt"}
"""The formats of `maml export params`, and how the names of their files end."""


def export_metrics(
    run: RunArg = None,
    checkpoint: CheckpointOpt = None,
    out: Annotated[
        Path, typer.Option("--out", parser=path, metavar="FILE", help="The table; - is standard output.")
    ] = STANDARD_STREAM,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values, as by default.")] = False,
    as_json: JsonOpt = False,
) -> None:
    """Write the log of a training as a tidy table: a row for each outer step, seed and quantity.

    Columns: step, seed, quantity, inner_step, value. Quantities are loss, grad_norm, the errors on validation tasks
    (grid_mse and others, after inner_step inner steps) and learned alphas.

    [bold]Examples[/]

      maml export metrics outputs/quickstart > metrics.csv
      maml export metrics outputs/quickstart --json
    """
    from maml_cli.documents import to_json, trainings
    from maml_cli.messages import print_message
    from maml_cli.reporting.run_figures import read_log
    from maml_cli.runs import METRIC_COLUMNS, metric_rows

    if as_csv and as_json:
        raise ConfigError("--csv, --json: give one of the two")
    trained_run = open_for_command(choose_run(run, checkpoint), None, None)
    directory = trained_run.checkpoint.run
    if directory is None or not (directory / "metrics.jsonl").exists():
        raise FileError(f"{trained_run.checkpoint.file}: no metrics.jsonl around it")
    log = read_log(trained_run)
    if log.warning:
        print_message(log.warning)
    rows = metric_rows(log, trained_run.checkpoint.config.seeds)
    with writing("--out", out), text_writer(out) as write:
        if as_json:
            write(
                to_json(trainings.MetricsDocument(metrics=[trainings.MetricRow(**row._asdict()) for row in rows]))
                + "\n"
            )
        else:
            write(csv_text([METRIC_COLUMNS]))
            for row in rows:
                write(csv_text([row]))
    if out != STANDARD_STREAM:
        print_path(out)


def export_params(
    run: RunArg = None,
    checkpoint: CheckpointOpt = None,
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            parser=one_of([*SUFFIXES]),
            autocompletion=complete_words([*SUFFIXES]),
            metavar="FORMAT",
            help=f"The format of the file: {list_in_words([*SUFFIXES])}.",
        ),
    ] = "npz",
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            parser=whole_number(0),
            metavar="N",
            help="The seed of training, of a run with several; by default the first.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            parser=path,
            metavar="FILE",
            help="The file; by default params in the run directory, or outputs/NAME-params of a published run.",
        ),
    ] = None,
) -> None:
    """Write the learned parameters for other programs: initial weights, alphas and curvature.

    Weights are (in, out), so that a layer is x W + b. The config is in the file as text.

    [bold]Examples[/]

      maml export params outputs/quickstart
      maml export params best-5shot --format safetensors --out best.safetensors
    """
    from maml_cli.evaluation import default_file, encode_params
    from maml_cli.runs import make_folder, target_of, write_atomic

    trained_run = open_for_command(choose_run(run, checkpoint), None, None)
    content = encode_params(trained_run, file_format, seed=seed)
    file = out or default_file([trained_run], f"params{SUFFIXES[file_format]}")
    with writing("--out", out):
        make_folder(file.parent)
        write_atomic(target_of(file), content)
    print_path(file)


register(export_app, export_metrics, name="metrics")
register(export_app, export_params, name="params")
