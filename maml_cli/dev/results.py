"""The published results: `make results` trains every method, evaluates it and writes tables, figures and runs.

Trainings that are finished are not repeated, and those that were interrupted are resumed.
"""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from maml_cli.cli.exit_codes import exit_on_error
from maml_cli.config import load_config
from maml_cli.dev.published_figures import draw_quickstart, draw_results
from maml_cli.dev.results_cases import NUM_FIRST, NUM_SECOND
from maml_cli.dev.results_document import PublishedRow, Results, RunResult, read_results, write_results
from maml_cli.dev.results_page import results_page
from maml_cli.dev.results_plan import ResultRow, results_plan
from maml_cli.dev.results_training import Job, run_directory, run_jobs
from maml_cli.errors import ConfigError, DivergedError
from maml_cli.runs import write_atomic
from maml_cli.runs.published import PUBLISHED

RUNS = Path("outputs/results")


def rows_to_make(only: Sequence[str], overrides: Sequence[str], num_tasks: int) -> list[ResultRow]:
    """The rows of the plan that `only` names, or all, with further `overrides` and with at most `num_tasks` test tasks
    in each case; raises ConfigError if there are none, or for an override that does not fit.

    only: names of rows, and beginnings of the names of several.
    """
    plan = results_plan()
    names = ", ".join(row.name for row in plan)
    exact = {row.name for row in plan} & set(only)
    beginnings = tuple(beginning for beginning in only if beginning not in exact)
    rows = [row for row in plan if not only or row.name in exact or row.name.startswith(beginnings)]
    if not rows:
        raise ConfigError(f"--only {' '.join(only)}: no row begins with that; the rows are {names}")
    made = []
    for row in rows:
        cases = tuple(case._replace(num_tasks=min(num_tasks, case.num_tasks)) for case in row.cases)
        made.append(row._replace(overrides=(*row.overrides, *overrides), cases=cases))
        load_config(row.preset, made[-1].overrides)
    return made


def published_rows(rows: Sequence[ResultRow], runs: Mapping[str, list[RunResult]]) -> list[PublishedRow]:
    """The rows of results.json: those of `rows` that have `runs`, by name."""
    return [
        PublishedRow(
            row, load_config(row.preset, row.overrides).config.inner.alpha.after_last_step, runs=runs[row.name]
        )
        for row in rows
        if row.name in runs
    ]


def merge_rows(previous: Sequence[PublishedRow], new: Sequence[PublishedRow]) -> list[PublishedRow]:
    """The `new` rows and the `previous` rows without a new one of their name, in the order of the plan.

    Rows that the plan no longer has are dropped.
    """
    by_name = {entry.row.name: entry for entry in [*previous, *new]}
    return [by_name[row.name] for row in results_plan() if row.name in by_name]


def copy_published_runs(name: str, seeds: Iterable[int], runs: Path, out: Path) -> None:
    """Copy the trained runs of the row `name` to `out`: config, metrics and the final checkpoint, without optimiser
    state."""
    from maml_cli.runs import open_checkpoint, save_checkpoint, write_config

    training_only = {"optimizers", "generators", "noise_generators"}
    for seed in seeds:
        source, target = run_directory(name, seed, runs), published_run(name, seed, out)
        checkpoint = open_checkpoint(source)
        shutil.rmtree(target, ignore_errors=True)  # contains only files of this function
        (target / "checkpoints").mkdir(parents=True)
        write_config(target, checkpoint.config)
        shutil.copyfile(source / "metrics.jsonl", target / "metrics.jsonl")
        contents = {key: value for key, value in checkpoint.contents.items() if key not in training_only}
        save_checkpoint(target, checkpoint.step, contents)


def published_run(name: str, seed: int, out: Path = PUBLISHED) -> Path:
    """The directory of a published run."""
    return out / (name if seed == 0 else f"{name}-seed{seed}")


def main(
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time.")] = os.cpu_count() or 1,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only the row of this name, or those whose names begin with it; may be repeated."),
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", "-s", help="Replace one key of every config.")] = None,
    tasks: Annotated[int | None, typer.Option(min=2, help="Largest number of test tasks of an evaluation.")] = None,
    runs: Annotated[Path, typer.Option(help="Directory of the run directories.")] = RUNS,
    out: Annotated[Path, typer.Option(help="Directory of the results.")] = PUBLISHED,
) -> None:
    """Train and evaluate every method; write results.json, RESULTS.md, figures and the runs behind the goals."""
    if (overrides or tasks is not None) and out == PUBLISHED:
        raise ConfigError("--set and --tasks do not give the published results: choose another --out")
    rows = rows_to_make(only or [], overrides or [], NUM_SECOND if tasks is None else tasks)
    previous = read_results(out / "results.json")
    planned = [Job(row, seed, runs) for row in rows for seed in row.seeds]
    runs_by_row = run_jobs(planned, processes=jobs, notify=lambda text: typer.echo(text, err=True))
    out.mkdir(parents=True, exist_ok=True)
    results = Results(merge_rows(previous.entries, published_rows(rows, runs_by_row)))
    write_results(out / "results.json", results)
    draw_results(results, out)
    if (quickstart := run_directory("quickstart", 0, runs)).exists():
        draw_quickstart(quickstart, out, min(tasks or NUM_FIRST, NUM_FIRST))
    write_atomic(out / "RESULTS.md", results_page(out).encode())
    for row in rows:
        if row.name in runs_by_row:
            trained = [run.seed for run in runs_by_row[row.name] if run.diverged_step is None]
            copy_published_runs(row.name, trained[: row.num_committed], runs, out)
    typer.echo(out / "RESULTS.md")
    if failed := [row.name for row in rows if row.name not in runs_by_row]:
        typer.echo(f"failed; previous results, if any, are unchanged: {', '.join(failed)}", err=True)
        raise typer.Exit(DivergedError.exit_code)


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
