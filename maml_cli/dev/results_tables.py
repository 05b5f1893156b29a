"""Tables of the published results, in Markdown."""

import math
from collections.abc import Mapping, Sequence

from maml_cli.dev.markdown import format_cell, table, yes_or_no
from maml_cli.dev.results_document import PublishedRow, Results, StepErrors

MAX_SEED_RATIO = 1.2
"""No seed may exceed a goal's bound by a larger factor."""
MAX_GROWTH = 1.5
"""G5: after twice the trained inner steps, the error may have grown by this factor."""
MAX_TASK_ERROR = 100.0
"""G5: the largest error of any task after twice the trained inner steps."""


def goal_table(results: Results) -> str:
    """Goals G1 to G5: the error of every seed, the bound, and whether it is met."""
    rows = []
    for row in results.entries:
        for goal in row.goals:
            means = [run.errors(goal.shots, goal.step).mean for run in row.runs]
            mean = sum(means) / len(means)
            met = mean <= goal.bound and max(means) <= MAX_SEED_RATIO * goal.bound
            cells = [row.label, config_cell(row), goal.shots, goal.step, f"**{format_cell(mean)}**", _list(means)]
            rows.append([*cells, f"≤ {goal.bound:g}", yes_or_no(met), training_cell(row), goal.published])
        if row.label == "G3":
            rows.append(_growth_row(row))
    header = [
        "",
        "preset and overrides",
        "K",
        "inner steps",
        "MSE, mean of seeds",
        "MSE of each seed",
        "goal",
        "met",
        "training",
        "published",
    ]
    return table(header, rows)


def _growth_row(row: PublishedRow) -> list[object]:
    """The row of G5: the runs of G3 after twice the trained inner steps."""
    (goal,) = row.goals
    shots, twice = goal.shots, 2 * goal.step
    pairs = [(run.errors(shots, goal.step), run.errors(shots, twice)) for run in row.runs]
    means, worst = [after.mean for _, after in pairs], max(after.max for _, after in pairs)
    met = worst <= MAX_TASK_ERROR and all(after.mean <= MAX_GROWTH * trained.mean for trained, after in pairs)
    seeds = f"{_list(means)}; worst task {format_cell(worst)}"
    bound = f"{MAX_GROWTH:g} times step {goal.step} (by `after_last_step: {row.after_last_step}`), "
    bound += f"no task above {MAX_TASK_ERROR:g}"
    mean = f"**{format_cell(sum(means) / len(means))}**"
    return ["G5", config_cell(row), shots, twice, mean, seeds, bound, yes_or_no(met), "as G3", ""]


def method_table(results: Results) -> str:
    """One row for each method: the errors of seed 0 at K = 5 and K = 10, with the config of each."""
    rows = []
    for title, by_shots in methods(results).items():
        largest = by_shots[max(by_shots)]
        errors = [_errors_cell(by_shots[shots], shots) if shots in by_shots else "" for shots in (5, 10)]
        published = [by_shots[shots].published if shots in by_shots else "" for shots in (5, 10)]
        configs = "; ".join(dict.fromkeys(f"K = {shots}: {config_cell(row)}" for shots, row in by_shots.items()))
        steps = f"{largest.runs[0].outer_steps:,}"
        times = "; ".join(training_cell(row) for row in by_shots.values())
        rows.append([title, configs, *errors, steps, times, _join_published(published)])
    header = ["method", "preset and overrides", "MSE after inner step, K = 5", "K = 10", "outer steps"]
    return table([*header, "training, K = 5; 10", "published, K = 5; 10"], rows)


def methods(results: Results) -> dict[str, dict[int, PublishedRow]]:
    """The row of each method at each K that it was trained with, K = 5 first, by title."""
    by_title: dict[str, dict[int, PublishedRow]] = {}
    for row in results.entries:
        if row.label in ("", "G1") and row.name != "quickstart":
            by_title.setdefault(row.title, {})[row.runs[0].results[-1].shots] = row
    return {title: dict(sorted(by_shots.items())) for title, by_shots in by_title.items()}


def summary_table(results: Results) -> str:
    """The short table of the README: the first goal of each group at the K that the run was trained with."""
    rows = []
    for row in results.entries:
        for goal in row.goals:
            if goal.step == row.report_steps[0] and goal.shots == row.runs[0].results[-1].shots:
                means = [run.errors(goal.shots, goal.step).mean for run in row.runs]
                mean = f"**{format_cell(sum(means) / len(means))}**"
                rows.append([config_cell(row), goal.shots, goal.step, mean, goal.published])
    return table(["preset", "K", "inner steps", "MSE, mean of three seeds", "published"], rows)


def config_cell(row: PublishedRow) -> str:
    """The preset, and the overrides if there are any."""
    return " ".join([f"`{row.preset}`", *(f"`{override}`" for override in row.overrides)])


def training_cell(row: PublishedRow) -> str:
    """Minutes of training, the mean over seeds, and the engine."""
    minutes = sum(run.seconds for run in row.runs) / len(row.runs) / 60
    return f"{minutes:.1f} min, {'/'.join(dict.fromkeys(run.engine for run in row.runs))}"


def engines_used(results: Results) -> Mapping[str, int]:
    """The number of published trainings by each engine."""
    engines = [run.engine for row in results.entries for run in row.runs]
    return {engine: engines.count(engine) for engine in dict.fromkeys(engines)}


def _errors_cell(row: PublishedRow, shots: int) -> str:
    """Errors of the first seed by inner step, such as `1: 0.366 ± 0.008, 10: 0.171 ± 0.118`."""
    return ", ".join(f"{step}: {_error(row.runs[0].errors(shots, step))}" for step in row.report_steps)


def _error(errors: StepErrors) -> str:
    if math.isfinite(errors.mean):
        return f"{format_cell(errors.mean)} ± {format_cell(errors.ci95)}"
    return f"overflow (median {format_cell(errors.median)})"


def _join_published(published: Sequence[str]) -> str:
    return "; ".join(text or "-" for text in published) if any(published) else ""


def _list(values: Sequence[float]) -> str:
    return ", ".join(map(format_cell, values))
