"""The published results: every method trained, evaluated and written down, so that anyone can repeat them.

`make results` runs this. What is trained already is not trained again, and what was interrupted goes on.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from maml_cli.cli.exit_codes import exit_on_error
from maml_cli.config import load_config
from maml_cli.dev.results_plan import ResultRow, results_plan
from maml_cli.dev.results_tables import or_inf, results_head, results_markdown
from maml_cli.errors import ConfigError, DivergedError, FileError, UserError
from maml_cli.runs import OUTPUTS, read_lines, write_atomic

NUM_TASKS = 10_000
RUNS = OUTPUTS / "results"
FIGURE_CURVES = {
    "MAML": "finn-{K}shot",
    "CAVIA": "cavia-{K}shot",
    "Meta-SGD": "meta-sgd-{K}shot",
    "MAML++": "maml-plus-plus-{K}shot",
    "best, one step": "best-1step-{K}shot",
    "best, five steps": "best-{K}shot",
}
PUBLISHED = OUTPUTS / "published"


class Job(NamedTuple):
    """One training and its evaluation: what a process is given."""

    row: ResultRow
    seed: int
    run: str
    changes: tuple[str, ...]
    num_tasks: int


def train_and_evaluate(work: Job) -> dict[str, Any]:
    """Train what `work` says, or go on with it, and evaluate it: plain values, ready for JSON."""
    from maml_cli.engines import choose_engine
    from maml_cli.evaluation import Protocol, learner_statistics, open_run
    from maml_cli.experiment import choose_device
    from maml_cli.runtime import set_threads
    from maml_cli.training import plan_training, run_session

    set_threads(1)
    run, entry = Path(work.run), work.row
    changes = [*entry.changes, f"run.seed={work.seed}", *work.changes]
    launched = run_session(plan_training(entry.preset, changes, out=run, resume="auto", device=None), quiet=True)
    if launched.exit_code:
        raise KeyboardInterrupt
    opened = open_run(run)
    protocol = Protocol(work.num_tasks, tuple(entry.shots), max(entry.steps), seed=0)
    by_shots = zip(entry.shots, learner_statistics(opened, protocol), strict=True)
    found = [{"shots": shots, "steps": [value._asdict() for value in steps]} for shots, steps in by_shots]
    return {
        "seed": work.seed,
        "outer_steps": opened.config.outer.steps,
        "engine": launched.engine,
        "seconds": training_seconds(run),
        "results": found,
    }


def training_seconds(run: Path) -> float:
    """The time that a training took, in all of its parts if it was resumed."""
    times = [float(record["seconds"]) for record in read_lines(run / "timing.jsonl")]
    return sum(now for now, after in pairwise([*times, 0.0]) if after < now)


def run_all(
    entries: Sequence[ResultRow],
    *,
    jobs: int,
    changes: Sequence[str],
    num_tasks: int,
    runs: Path,
    say: Callable[[str], None],
) -> dict[str, list[dict[str, Any]]]:
    """All trainings, `jobs` at a time; by the names of their entries, in the order of their seeds.

    An entry of which one training failed is left out.
    """
    todo = [
        Job(entry, seed, str(runs / f"{entry.name}-seed{seed}"), tuple(changes), num_tasks)
        for entry in entries
        for seed in entry.seeds
    ]
    found: dict[str, list[dict[str, Any]]] = {entry.name: [] for entry in entries}
    started = time.perf_counter()
    # A fresh process each, so that a training finds the machine as `maml train` does.
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1)
    waiting = {pool.submit(train_and_evaluate, work): work for work in todo}
    try:
        for count, done in enumerate(as_completed(waiting), start=1):
            work, minutes = waiting[done], (time.perf_counter() - started) / 60
            try:
                found[work.row.name].append(done.result())
                say(f"{count} of {len(todo)}: {work.run}, {minutes:.1f} min")
            except Exception as error:  # whatever it is, the others are not lost with it
                words = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                say(f"{count} of {len(todo)}: {work.run} failed: {words}")
    finally:
        pool.shutdown(cancel_futures=True)
    complete = {entry.name for entry in entries if len(found[entry.name]) == len(entry.seeds)}
    return {name: sorted(found[name], key=lambda one: one["seed"]) for name in found if name in complete}


def result_rows(
    entries: Sequence[ResultRow], found: dict[str, list[dict[str, Any]]], changes: Sequence[str], num_tasks: int
) -> list[dict[str, Any]]:
    """The lines of results.json."""
    return [
        {
            "name": entry.name,
            "preset": entry.preset,
            "changes": [*entry.changes, *changes],
            "num_tasks": num_tasks,
            "title": entry.title,
            "label": entry.label,
            "after_last_step": load_config(entry.preset, entry.changes).config.inner.alpha.after_last_step,
            "published": entry.published,
            "report_steps": list(entry.steps),
            "goals": [goal._asdict() for goal in entry.goals],
            "runs": found[entry.name],
        }
        for entry in entries
        if entry.name in found
    ]


def _unchanged_rows(before: Sequence[dict[str, Any]], made: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was in results.json of lines that were not made again, so that --only makes a part of the results."""
    names = {line["name"] for line in made}
    return [line for line in before if line["name"] not in names]


def _lines(file: Path) -> list[dict[str, Any]]:
    """The lines of results.json; raises FileError if it is damaged."""
    try:
        lines: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["entries"] if file.exists() else []
    except (ValueError, KeyError, TypeError):
        raise FileError(f"{file}: not what make results writes; mend it or move it away") from None
    return lines


def _in_order(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the order of the plan; what is not in it any more is left out."""
    places = {entry.name: place for place, entry in enumerate(results_plan())}
    return sorted((line for line in lines if line["name"] in places), key=lambda line: places[line["name"]])


def keep_published_runs(entry: ResultRow, runs: Path, out: Path) -> None:
    """Copy the runs behind a goal: config, metrics, and the final checkpoint without what only training needs."""
    from maml_cli.runs import open_checkpoint, save_checkpoint, write_config

    for seed in entry.seeds:
        source = runs / f"{entry.name}-seed{seed}"
        target = out / (entry.name if seed == 0 else f"{entry.name}-seed{seed}")
        found = open_checkpoint(source)
        shutil.rmtree(target, ignore_errors=True)  # only what this command made; git has what was there
        (target / "checkpoints").mkdir(parents=True)
        write_config(target, found.config)
        shutil.copyfile(source / "metrics.jsonl", target / "metrics.jsonl")
        left_out = {"optimizers", "generators", "noise_generators"}
        save_checkpoint(target, found.step, {key: v for key, v in found.contents.items() if key not in left_out})


def draw_figures(results: dict[str, Any], runs: Path, out: Path) -> None:
    """The figures of the README: the learners beside one another at each K, and the quickstart, where it is new."""
    from maml_cli.evaluation import Protocol, Statistic, open_run
    from maml_cli.reporting.figures import Curve
    from maml_cli.reporting.run_figures import draw, draw_curves

    entries = {entry["name"]: entry for entry in results["entries"]}
    for shots in (5, 10):
        curves = []
        for words, name in FIGURE_CURVES.items():
            if (entry := entries.get(name.format(K=shots))) is not None:
                (found,) = [one for one in entry["runs"][0]["results"] if one["shots"] == shots]
                values = [
                    Statistic(*(or_inf(one[key]) for key in ("mean", "ci95", "median"))) for one in found["steps"]
                ]
                curves.append(Curve(words, values, entry["report_steps"][0]))
        if curves:
            title = f"finn's sinusoids, K = {shots}, 95 % intervals"
            draw_curves(curves, out / f"results-{shots}shot.png", measure="mse", title=title)
    if (runs / "quickstart-seed0").exists():
        opened = open_run(runs / "quickstart-seed0")
        for file in draw(opened, Protocol(), kinds=["fit", "steps"], form="png", out=out):
            file.replace(out / f"quickstart-{file.name}")


def _names() -> str:
    return ", ".join(entry.name for entry in results_plan())


def main(
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time.")] = os.cpu_count() or 1,
    only: Annotated[list[str] | None, typer.Option(help="Only entries whose name begins like that.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", "-s", help="Replace one key of every config.")] = None,
    tasks: Annotated[int, typer.Option(min=2, help="Number of test tasks.")] = NUM_TASKS,
    runs: Annotated[Path, typer.Option(help="Where the runs are.")] = RUNS,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = PUBLISHED,
) -> None:
    """Train and evaluate every method, and write RESULTS.md, results.json, figures and reference runs."""
    from maml_cli.reporting import finite_or_null

    entries = [entry for entry in results_plan() if not only or entry.name.startswith(tuple(only))]
    if not entries:
        raise ConfigError(f"--only {' '.join(only or [])}: no entry begins so; there are {_names()}")
    if (changes or tasks != NUM_TASKS) and out == PUBLISHED:
        raise ConfigError("with --set or --tasks these are not the published results: give an --out of their own")
    for entry in entries:
        load_config(entry.preset, [*entry.changes, *(changes or [])])
    before = _lines(out / "results.json")
    found = run_all(
        entries,
        jobs=jobs,
        changes=changes or [],
        num_tasks=tasks,
        runs=runs,
        say=lambda text: typer.echo(text, err=True),
    )
    out.mkdir(parents=True, exist_ok=True)
    made = result_rows(entries, found, changes or [], tasks)
    lines = _in_order([*_unchanged_rows(before, made), *made])
    results = finite_or_null({"schema_version": 1, "entries": lines})
    write_atomic(out / "results.json", f"{json.dumps(results, indent=1, allow_nan=False)}\n".encode())
    write_atomic(out / "RESULTS.md", f"{results_head(results)}\n{results_markdown(results)}".encode())
    draw_figures(results, runs, out)
    for entry in entries:
        if entry.label and entry.name in found:
            keep_published_runs(entry, runs, out)
    typer.echo(out / "RESULTS.md")
    if failed := [entry.name for entry in entries if entry.name not in found]:
        typer.echo(f"failed, and in the results as they were before, if at all: {', '.join(failed)}", err=True)
        raise typer.Exit(DivergedError.exit_code)


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
