"""Tables of evaluations for a terminal: errors, their distribution over tasks, and of kinds of tasks and ensembles."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from rich.table import Table

from maml_cli.errors import printable
from maml_cli.evaluation import DIVERGED, Errors, Evaluation, KindErrors, PointErrors, Protocol, Statistic, Tail
from maml_cli.reporting.format import format_interval, format_number, format_short, plural
from maml_cli.reporting.tables import (
    MEASURES,
    SEEDS_COLUMN,
    TitledTable,
    interval,
    new_console,
    new_table,
    seeds_interval,
    statistic_of,
)

LARGE_SHARE = 1 / 3
"""Share of the mean from which a note says that the worst 1 % of the tasks carry it."""
KINDS_AT_A_TIME = 4
"""Components of a mixture in one table of 80 columns; more have several tables."""

BASELINES = {
    "zero": "predict zero",
    "best_unadapted": "best unadapted",
    "least_squares": "least squares",
    "least_squares_any_frequency": "any frequency",
    "mean_curve": "mean curve",
    "least_squares_sinusoid": "sinusoid",
}
"""Rows of the baselines without inner steps; one that does not apply to the task family is None and has no row."""


class ErrorColumn(NamedTuple):
    """A column of the table of an evaluation.

    title: its heading.
    text: a cell, made from the errors of a row on all points.
    """

    title: str
    text: Callable[[PointErrors], str]


def print_evaluations(evaluations: Sequence[Evaluation], *, measure: str, title: str) -> None:
    """Print tables for each K: errors by inner step and of the baselines, their distribution over tasks, and more."""
    console = new_console()
    for evaluation in evaluations:
        console.print(f"\n{printable(title)}")
        for index, (heading, table, notes) in enumerate(evaluation_tables(evaluation, measure)):
            console.print("\n" * (index > 0) + "\n".join(heading))
            console.print(table)
            for note in notes:
                console.print(note)
    for note in table_notes(evaluations):
        console.print(note)


def evaluation_tables(evaluation: Evaluation, measure: str) -> Iterator[TitledTable]:
    """The tables of an evaluation: errors, their distribution over tasks, kinds of tasks, the predictive distribution,
    and seeds as an ensemble."""
    heading = [
        f"K = {evaluation.shots}, {plural(evaluation.num_tasks, 'test task')} (seed {evaluation.seed}); "
        f"{MEASURES[measure]} error, mean ± 95 % interval"
    ]
    if evaluation.noisy_targets:
        heading.append("errors on grid and fresh points against targets with noise")
    notes = [f"{BASELINES[name]}: {note}" for name, note in evaluation.notes.items()]
    yield TitledTable(heading, _evaluation_table(evaluation, measure), notes)
    heading = [f"distribution over tasks, {measure.upper()} on the {evaluation.grid_name}"]
    yield TitledTable(heading, _tail_table(evaluation, measure), _tail_notes(evaluation, measure))
    for kinds in _groups(evaluation.by_kind, KINDS_AT_A_TIME):
        heading = [f"kinds of tasks, mean {measure.upper()} on the {evaluation.grid_name}"]
        yield TitledTable(heading, _kinds_table(evaluation, kinds, measure))
    if evaluation.calibration:
        heading = [f"predictive distribution of new targets, on the {evaluation.grid_name}"]
        yield TitledTable(heading, _calibration_table(evaluation))
    if evaluation.ensemble:
        heading = [f"{plural(len(evaluation.by_seed), 'seed')} as an ensemble, on the {evaluation.grid_name}"]
        yield TitledTable(heading, _ensemble_table(evaluation))


def table_notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """Lines that explain the signs in the tables of these evaluations."""
    notes = []
    if any(len(evaluation.steps) > evaluation.trained_steps for evaluation in evaluations):
        notes.append("* the trained number of inner steps")
    if any(evaluation.baselines.get("least_squares_any_frequency") for evaluation in evaluations):
        notes.append("any frequency: a least-squares sinusoid of the frequency that fits the support points best")
    seeds = max(len(evaluation.by_seed) for evaluation in evaluations)
    if seeds > 1:
        notes.append(f"±: over tasks, of their means over {plural(seeds, 'seed')}; {SEEDS_COLUMN}: over seeds")
    return notes


def tasks_note(num_tasks: int, protocol: Protocol) -> str:
    """A line about the number of test tasks behind the numbers of a page, and of those of `maml eval`."""
    measured = f"Measured on {plural(num_tasks, 'test task')}"
    if num_tasks < protocol.num_tasks:
        return f"{measured}, all that there are."
    if num_tasks == Protocol().num_tasks:
        return f"{measured}, as maml eval does by default."
    return f"{measured}; maml eval takes {Protocol().num_tasks:,} by default, so that its numbers differ a little."


def _evaluation_table(evaluation: Evaluation, measure: str) -> Table:
    def statistic(errors: Errors) -> Statistic:
        return statistic_of(errors, measure)

    columns = [
        ErrorColumn(evaluation.grid_name, lambda errors: interval(statistic(errors.grid))),
        ErrorColumn("median", lambda errors: format_number(statistic(errors.grid).median)),
        ErrorColumn(f"{evaluation.shots} fresh points", lambda errors: interval(statistic(errors.query))),
        ErrorColumn("support", lambda errors: format_number(statistic(errors.support).mean)),
    ]
    if len(evaluation.by_seed) > 1:
        columns.insert(1, ErrorColumn(SEEDS_COLUMN, lambda errors: seeds_interval(statistic(errors.grid))))
    # With intervals over seeds, columns must be closer to fit on 80 columns.
    table = new_table(
        "step", *(column.title for column in columns), "random", gap=1 if len(evaluation.by_seed) > 1 else 2
    )
    for step, (errors, random) in enumerate(zip(evaluation.steps, evaluation.random_init, strict=True)):
        cells = [column.text(errors) for column in columns]
        table.add_row(_step(evaluation, step), *cells, format_number(statistic(random.grid).mean))
    table.add_section()
    for label, baseline in _baseline_rows(evaluation.baselines):
        table.add_row(label, *(column.text(baseline) for column in columns), "")
    return table


def _tail_table(evaluation: Evaluation, measure: str) -> Table:
    """A row of percentiles and worst tasks for each inner step and baseline."""
    by_step = [_tail(errors, measure) for errors in evaluation.steps]
    by_baseline = {label: _tail(errors, measure) for label, errors in _baseline_rows(evaluation.baselines)}
    has_diverged = any(tail.num_diverged for tail in [*by_step, *by_baseline.values()])
    last_column = ["mean without\ndiverged"] if has_diverged else []
    table = new_table("step", "90 %", "99 %", "worst", "worst 10 %\non average", "diverged", *last_column)
    for step, tail in enumerate(by_step):
        table.add_row(_step(evaluation, step), *_tail_cells(tail))
    table.add_section()
    for label, tail in by_baseline.items():
        table.add_row(label, *_tail_cells(tail))
    return table


def _tail_cells(tail: Tail) -> list[str]:
    values = (tail.percentile_90, tail.percentile_99, tail.worst, tail.worst_10_percent_mean)
    without = "" if tail.mean_without_diverged is None else format_number(tail.mean_without_diverged)
    return [*map(format_number, values), f"{tail.num_diverged:,}", without]


def _tail_notes(evaluation: Evaluation, measure: str) -> list[str]:
    """Notes on the definition of divergence, where tasks diverged, and on a few tasks that carry the mean."""
    step = min(evaluation.trained_steps, len(evaluation.steps) - 1)
    tail, notes = _tail(evaluation.steps[step], measure), []
    if any(_tail(errors, measure).num_diverged for errors in evaluation.steps):
        notes.append(f"diverged: not finite, or an error above {DIVERGED:g} times that of predicting zero")
    share, num_tasks = tail.worst_1_percent_share, tail.tasks_for_10_percent_interval
    if share is not None and num_tasks is not None and share > LARGE_SHARE:
        notes.append(
            f"after {plural(step, 'inner step')} the worst 1 % of the tasks carry {share:.0%} of the mean: "
            f"some {float(format_short(num_tasks)):,.0f} tasks would narrow its 95 % interval to ±10 %"
        )
    return notes


def _kinds_table(evaluation: Evaluation, kinds: Mapping[str, KindErrors], measure: str) -> Table:
    """The mean error on the tasks of some components of a mixture, for each inner step and baseline."""
    headings = [f"{label}\n{plural(errors.num_tasks, 'task')}" for label, errors in kinds.items()]
    table = new_table("step", *headings, "all")
    for step, errors in enumerate(evaluation.steps):
        by_kind = [of_kind.steps[step] for of_kind in kinds.values()]
        table.add_row(_step(evaluation, step), *_means([*by_kind, errors], measure))
    table.add_section()
    for name, label in BASELINES.items():
        if evaluation.baselines.get(name):
            by_kind_or_none = [of_kind.baselines[name] for of_kind in kinds.values()]
            table.add_row(label, *_means([*by_kind_or_none, evaluation.baselines[name]], measure))
    return table


def _means(row: Sequence[PointErrors | None], measure: str) -> list[str]:
    return [format_number(statistic_of(errors.grid, measure).mean) if errors else "" for errors in row]


def _ensemble_table(evaluation: Evaluation) -> Table:
    """The errors of the mean prediction over seeds, and of the band around it, after each inner step."""
    table = new_table("step", "MSE of the mean", "NLL per point", "in the 90 % band")
    for step, (mse, nll, coverage) in enumerate(evaluation.ensemble):
        cells = [format_interval(*mse), format_interval(*nll), f"{coverage.mean:.1%}"]
        table.add_row(_step(evaluation, step), *cells)
    return table


def _calibration_table(evaluation: Evaluation) -> Table:
    """The likelihood and the coverage of the predictive distribution, after each inner step."""
    table = new_table("step", "NLL per point", "median", "in the 95 % interval", "in the 50 % interval")
    for step, (nll, *coverages) in enumerate(evaluation.calibration):
        shares = [f"{coverage.mean:.1%} ± {coverage.ci95:.2%}" for coverage in coverages]
        table.add_row(_step(evaluation, step), interval(nll), format_number(nll.median), *shares)
    return table


def _baseline_rows(baselines: Mapping[str, PointErrors | None]) -> list[tuple[str, PointErrors]]:
    """The label and the errors of each baseline that has a row."""
    return [(label, errors) for name, label in BASELINES.items() if (errors := baselines.get(name))]


def _step(evaluation: Evaluation, step: int) -> str:
    return f"{step}{'*' if step == evaluation.trained_steps else ' '}"


def _groups(kinds: Mapping[str, KindErrors], size: int) -> list[dict[str, KindErrors]]:
    rows = [*kinds.items()]
    return [dict(rows[start : start + size]) for start in range(0, len(rows), size)]


def _tail(errors: PointErrors, measure: str) -> Tail:
    tail = statistic_of(errors.grid, measure).tail
    assert tail is not None, "evaluations have tails"
    return tail
