"""Results as people and scripts read them: tables for a terminal, and plain values for JSON."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from maml_cli.checks import Case
from maml_cli.config import to_dict
from maml_cli.evaluation import Comparison, Evaluation, PointErrors, Statistic, TrainedRun
from maml_cli.runtime import Choice
from maml_cli.training import SessionResult, TrainPlan

JSON_SCHEMA_VERSION = 1

MEASURES = {"mse": "mean squared", "mae": "mean absolute"}


def to_json(document: dict[str, Any]) -> str:
    """One JSON document, with its schema version first and null for what is not a finite number."""
    return json.dumps(finite_or_null({"schema_version": JSON_SCHEMA_VERSION, **document}), indent=2, allow_nan=False)


def plan_dict(planned: TrainPlan, device: Choice, engine: Choice) -> dict[str, Any]:
    """What a dry run would do, in JSON."""
    return {
        "run": planned.run_directory,
        "step": planned.checkpoint.step if planned.checkpoint else 0,
        "device": device.name,
        "engine": engine.name,
        "config": to_dict(planned.config),
    }


def train_dict(launched: SessionResult) -> dict[str, Any]:
    """A training in the documented JSON form; the rates are of this process."""
    trained = launched.result
    rate = trained.steps_done / trained.seconds if trained.steps_done else 0.0
    return {
        "run": str(launched.run),
        "checkpoint": str(trained.checkpoint),
        "step": trained.step,
        "seconds": trained.seconds,
        "outer_steps_per_second": rate,
        "tasks_per_second": rate * launched.config.outer.tasks_per_step * len(launched.config.seeds),
        "device": launched.device,
        "engine": launched.engine,
        "interrupted": trained.interrupted,
        "seeds": launched.config.seeds,
        "diverged": {str(seed): step for seed, step in trained.diverged.items()},
    }


def evaluation_document(
    opened: TrainedRun, evaluations: Sequence[Evaluation], overrides: Sequence[str]
) -> dict[str, Any]:
    """What was evaluated, and one result for each K, in the documented JSON form."""
    return {
        "checkpoint": str(opened.checkpoint.file),
        "step": opened.checkpoint.step,
        "overrides": list(overrides),
        "results": [evaluation_dict(evaluation) for evaluation in evaluations],
    }


def evaluation_dict(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation in the documented JSON form."""
    baselines = {name: _nested(errors) for name, errors in evaluation.baselines.items()}
    names = [*baselines]
    names.insert(2, "random_init")
    return {
        "shots": evaluation.shots,
        "num_tasks": evaluation.num_tasks,
        "seed": evaluation.seed,
        "trained_steps": evaluation.trained_steps,
        "steps": _by_step(evaluation.steps),
        "by_seed": [{"seed": seed, "steps": _by_step(steps)} for seed, steps in evaluation.by_seed.items()],
        "baselines": {name: baselines.get(name, _by_step(evaluation.random_init)) for name in names},
    }


def comparison_document(comparisons: Sequence[Comparison], figures: Sequence[Path]) -> dict[str, Any]:
    """Runs side by side, one result for each K, in the documented JSON form."""
    return {"figures": [str(figure) for figure in figures], "results": [_nested_runs(one) for one in comparisons]}


def _nested_runs(comparison: Comparison) -> dict[str, Any]:
    runs = [
        run._asdict() | {"steps": _by_step(run.steps), "difference": _nested(run.difference)} for run in comparison.runs
    ]
    return comparison._asdict() | {"runs": runs}


def case_dict(case: Case) -> dict[str, Any]:
    """A check in the documented JSON form."""
    return case._asdict() | {"passed": case.passed}


def print_evaluations(evaluations: Sequence[Evaluation], *, measure: str, title: str) -> None:
    """One table for each K, narrow enough for 80 columns."""
    console = _console()
    for evaluation in evaluations:
        console.print(f"\n{title}")
        console.print(
            f"K = {evaluation.shots}, {evaluation.num_tasks:,} test tasks (seed {evaluation.seed}); "
            f"{MEASURES[measure]} error,{_seeds_in_words(evaluation)} mean ± 95 % interval"
            f"{' over tasks' if len(evaluation.by_seed) > 1 else ''}"
        )
        console.print(_evaluation_table(evaluation, measure))
    if any(len(evaluation.steps) > evaluation.trained_steps for evaluation in evaluations):
        console.print("* the number of inner steps that it was trained for")


def _seeds_in_words(evaluation: Evaluation) -> str:
    count = len(evaluation.by_seed)
    return "" if count == 1 else f" over {count} seeds:"


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """One table for each K: a row for each run, and its difference from the first."""
    console = _console()
    for one in comparisons:
        error = f"{MEASURES[one.measure]} error on the 100-point grid"
        console.print(f"\nK = {one.shots}, the same {one.num_tasks:,} test tasks (seed {one.seed}) for all")
        console.print(error)
        table = _table("run", "step", one.measure.upper(), "median", "difference from first")
        for run in one.runs:
            there = getattr(run.steps[run.compared_step].grid, one.measure)
            apart = "" if run.difference is None else _interval(run.difference)
            after = f"{run.compared_step}{'*' if run.compared_step == run.trained_steps else ' '}"
            table.add_row(run.label, after, _interval(there), _number(there.median), apart)
        console.print(table)
    runs = [run for one in comparisons for run in one.runs]
    console.print("mean ± 95 % interval over tasks; differences task by task")
    if any(run.compared_step == run.trained_steps for run in runs):
        console.print("* as many steps as trained")


def print_cases(cases: Sequence[Case]) -> None:
    """A row for each check: expected, obtained, and whether they agree."""
    table = _table("", "check", "expected", "obtained")
    for case in cases:
        verdict = "ok" if case.passed else "[bold red]WRONG[/]"
        table.add_row(verdict, case.name, f"{case.expected:.7g}", f"{case.obtained:.7g}")
    console = _console()
    console.print(table)
    wrong = sum(not case.passed for case in cases)
    console.print(f"{len(cases) - wrong} of {len(cases)} checks passed" + (f", {wrong} WRONG" if wrong else ""))


def _evaluation_table(evaluation: Evaluation, measure: str) -> Table:
    table = _table("step", "100-point grid", "median", f"{evaluation.shots} fresh points", "support", "random init")
    for step, (errors, random) in enumerate(zip(evaluation.steps, evaluation.random_init, strict=True)):
        mark = "*" if step == evaluation.trained_steps else " "
        table.add_row(f"{step}{mark}", *_cells(errors, measure), _number(getattr(random.grid, measure).mean))
    table.add_section()
    names = {
        "zero": "predict zero",
        "best_unadapted": "best unadapted",
        "least_squares": "least squares",
        "least_squares_any_frequency": "- any frequency",
    }
    for name, words in names.items():
        if (found := evaluation.baselines.get(name)) is not None:
            table.add_row(words, *_cells(found, measure), "")
    return table


def _cells(errors: PointErrors, measure: str) -> list[str]:
    grid, query, support = (getattr(points, measure) for points in errors)
    return [_interval(grid), _number(grid.median), _interval(query), _number(support.mean)]


def _interval(value: Statistic) -> str:
    if not math.isfinite(value.ci95) or abs(value.mean) < 1e-9:
        return _number(value.mean)
    return f"{_number(value.mean)} ± {_number(value.ci95)}"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "-inf" if value == -math.inf else "inf"
    size = abs(value)
    if size == 0 or 1e-4 <= size < 10:
        return f"{value:.4f}"
    if 10 <= size < 1000:
        return f"{value:.3f}" if size < 100 else f"{value:.2f}"
    # 1.2e5 in place of 1.2e+05: a row of such intervals must still fit into 80 columns.
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}e{int(exponent)}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        # Folded where a terminal is too narrow: a number that is cut is worse than one on two lines.
        left = index == 0 or column == "check"
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    return table


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def _by_step(steps: Sequence[PointErrors]) -> list[dict[str, Any]]:
    return [{"step": step, **_nested(errors)} for step, errors in enumerate(steps)]


def _nested(value: Any) -> Any:
    if isinstance(value, Statistic) and value.ci95_seeds is None:
        return {"mean": value.mean, "ci95": value.ci95, "median": value.median}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _nested(item) for name, item in value._asdict().items()}
    return value


def finite_or_null(value: Any) -> Any:
    """Plain lists and dictionaries, with None for what is not a finite number."""
    if isinstance(value, dict):
        return {key: finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
