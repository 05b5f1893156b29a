"""Tables of the goals and of the methods, in Markdown, and the cells that all tables of results share."""

import math
from collections.abc import Iterator, Mapping, Sequence

from maml_cli.dev.markdown import format_cell, table, yes_or_no
from maml_cli.dev.results_cases import FIRST_BANK
from maml_cli.dev.results_document import PublishedRow, Results, StepErrors
from maml_cli.dev.results_plan import GOALS, LSTM, METHODS, Goal

MAX_SEED_RATIO = 1.2
"""No seed may exceed a goal's bound by a larger factor."""


def goal_table(results: Results) -> str:
    """The error of every seed at each goal, the bound, and whether it is met."""
    rows = []
    for entry, goal in _goals(results):
        bank, first = entry.bank(goal.shots), entry.bank(goal.shots, kind=FIRST_BANK)
        if bank is None or goal.step > entry.last_step(bank):
            continue
        means = entry.means(bank, goal.step)
        cells = [goal.label, config_cell(entry), goal.shots, goal.step, f"**{format_cell(mean(means))}**", _list(means)]
        of_first = format_cell(mean(entry.means(first, goal.step))) if first and first != bank else ""
        values = f"{entry.runs[0].num_values:,}"
        rows.append([*cells, of_first, _bound(entry, goal), yes_or_no(is_met(entry, goal)), values, goal.published])
    header = ["", "preset", "K", "inner steps", "MSE", "of each seed", "first bank", "goal", "met", "learned values"]
    return table([*header, "published"], rows)


def is_met(entry: PublishedRow, goal: Goal) -> bool:
    """Whether a goal is met: the mean over seeds is at most the bound, and no seed is above MAX_SEED_RATIO times it.

    A goal relative to another inner step is met if the error of each seed has grown by at most the factor, without
    `after_last_step: stop`, by which it could not grow.
    """
    bank = entry.bank(goal.shots)
    assert bank is not None
    means = entry.means(bank, goal.step)
    if goal.relative_to is None:
        return mean(means) <= goal.bound and max(means) <= MAX_SEED_RATIO * goal.bound
    trained = entry.means(bank, goal.relative_to)
    ratios = zip(means, trained, strict=True)
    return entry.after_last_step != "stop" and all(
        math.isfinite(after) and after <= goal.bound * before for after, before in ratios
    )


def lowest_labels(results: Results) -> list[str]:
    """The goals whose errors are all below every published error by gradient steps on this network."""
    below: dict[str, bool] = {}
    for entry, goal in _goals(results):
        bank = entry.bank(goal.shots)
        if goal.lowest is not None and bank is not None:
            is_below = max(entry.means(bank, goal.step)) < goal.lowest
            below[goal.label] = below.get(goal.label, True) and is_below
    return [label for label, is_below in below.items() if is_below]


def spread_table(results: Results) -> str:
    """The errors of single tasks at each goal: median, 99th percentile and worst task over the seeds, and training."""
    rows = []
    for entry, goal in _goals(results):
        bank = entry.bank(goal.shots)
        if bank is None or goal.relative_to is not None:
            continue
        errors = [run.at(bank, goal.step) for run in entry.runs]
        rows.append([config_cell(entry), goal.shots, goal.step, *spread_cells(errors), training_cell(entry)])
    return table(["preset", "K", "inner steps", *SPREAD, "training"], rows)


SPREAD = ["median", "99th percentile", "worst task", "share of the worst 1 %"]
"""The header of `spread_cells`."""


def spread_cells(errors: Sequence[StepErrors]) -> list[str]:
    """Median, 99th percentile and share of the worst 1 % of the tasks, means over seeds; the worst task of all."""
    percentiles = [error.percentile_99 for error in errors if error.percentile_99 is not None]
    shares = [error.worst_1_percent_share for error in errors if error.worst_1_percent_share is not None]
    return [
        format_cell(mean([error.median for error in errors])),
        format_cell(mean(percentiles)) if percentiles else "",
        format_cell(max(error.worst for error in errors)),
        f"{mean(shares):.0%}" if shares else "",
    ]


def method_table(results: Results) -> str:
    """One row for each method: the errors of seed 0 at K = 5 and K = 10 on the first bank, with the config of each."""
    rows = []
    for title, by_shots in methods(results).items():
        largest = by_shots[max(by_shots)]
        errors = [_errors_cell(by_shots[shots]) if shots in by_shots else "" for shots in (5, 10)]
        published = [by_shots[shots].row.published if shots in by_shots else "" for shots in (5, 10)]
        configs = "; ".join(dict.fromkeys(f"K = {shots}: {config_cell(entry)}" for shots, entry in by_shots.items()))
        run = largest.runs[0]
        times = "; ".join(training_cell(entry) for entry in by_shots.values())
        cells = [title, configs, *errors, f"{run.num_values:,}", f"{run.outer_steps:,}", times]
        rows.append([*cells, _join_published(published)])
    header = [
        "method",
        "preset and overrides",
        "MSE after inner step, K = 5",
        "K = 10",
        "learned values",
        "outer steps",
    ]
    return table([*header, "training, K = 5; 10", "published, K = 5; 10"], rows)


def methods(results: Results) -> dict[str, dict[int, PublishedRow]]:
    """The row of each method at each K that it was trained with, K = 5 first, by title."""
    by_title: dict[str, dict[int, PublishedRow]] = {}
    for entry in results.entries:
        if entry.row.group in (GOALS, METHODS) and entry.row.title:
            by_title.setdefault(entry.row.title, {})[entry.row.shots] = entry
    return {title: dict(sorted(by_shots.items())) for title, by_shots in by_title.items()}


def summary_table(results: Results) -> str:
    """The short table of the README: the first goal of each row at the K that it was trained with."""
    rows = []
    for entry in results.of_group(GOALS):
        goal = next(goal for goal in entry.row.goals if goal.shots == entry.row.shots)
        bank = entry.bank()
        if bank is not None:
            error = f"**{format_cell(mean(entry.means(bank, goal.step)))}**"
            rows.append([config_cell(entry), goal.shots, goal.step, error, goal.published])
    return table(["preset", "K", "inner steps", "MSE, mean over seeds", "published"], rows)


def config_cell(entry: PublishedRow) -> str:
    """The preset, and the overrides if there are any; the program that trains the LSTM."""
    if entry.row.learner == LSTM:
        return "`maml_cli/dev/lstm_baseline.py`"
    return " ".join([f"`{entry.row.preset}`", *(f"`{override}`" for override in entry.row.overrides)])


def training_cell(entry: PublishedRow) -> str:
    """The time of training, the mean over seeds, and the engine."""
    seconds = mean([run.seconds for run in entry.runs])
    duration = f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
    return f"{duration}, {'/'.join(dict.fromkeys(run.engine for run in entry.runs))}"


def error_cell(errors: StepErrors) -> str:
    """The mean over tasks with its interval, or the median where the mean overflows."""
    if math.isfinite(errors.mean):
        return f"{format_cell(errors.mean)} ± {format_cell(errors.ci95)}"
    return f"overflow (median {format_cell(errors.median)})"


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def engines_used(results: Results) -> Mapping[str, int]:
    """The number of published trainings by each engine."""
    engines = [run.engine for entry in results.entries for run in entry.runs]
    return {engine: engines.count(engine) for engine in dict.fromkeys(engines)}


def _goals(results: Results) -> Iterator[tuple[PublishedRow, Goal]]:
    return ((entry, goal) for entry in results.of_group(GOALS) for goal in entry.row.goals)


def _bound(entry: PublishedRow, goal: Goal) -> str:
    if goal.relative_to is None:
        return f"≤ {goal.bound:g}"
    stop = ", without `stop`" if entry.after_last_step == "stop" else ""
    return f"≤ {goal.bound:g} times step {goal.relative_to}{stop}"


def _errors_cell(entry: PublishedRow) -> str:
    """Errors of the first seed by inner step, such as `1: 0.366 ± 0.008, 10: 0.171 ± 0.118`."""
    bank, run = entry.bank(kind=FIRST_BANK), entry.runs[0]
    if bank is None:
        return ""
    if run.diverged_step is not None:
        return f"diverged at outer step {run.diverged_step:,}"
    return ", ".join(f"{step}: {error_cell(run.at(bank, step))}" for step in entry.row.steps)


def _join_published(published: Sequence[str]) -> str:
    return "; ".join(text or "-" for text in published) if any(published) else ""


def _list(values: Sequence[float]) -> str:
    return ", ".join(map(format_cell, values))
