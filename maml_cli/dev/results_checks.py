"""Tables of what a sceptic asks, in Markdown: other inner steps, other tasks, ablations and engines."""

from collections.abc import Sequence

from maml_cli.dev.markdown import format_cell, table
from maml_cli.dev.results_cases import FIRST_BANK, GAP, OUTSIDE, TRANSFER, Case
from maml_cli.dev.results_document import PublishedRow, Results
from maml_cli.dev.results_plan import ABLATED, ABLATIONS, ENGINES, GOALS
from maml_cli.dev.results_tables import SPREAD, config_cell, error_cell, mean, spread_cells, training_cell


def steps_table(results: Results) -> str:
    """The mean error over seeds after every inner step, with the trained step in bold."""
    lines = []
    for entry in results.of_group(GOALS):
        if (bank := entry.bank()) is not None:
            errors = [format_cell(mean(entry.means(bank, step))) for step in range(entry.last_step(bank) + 1)]
            trained = entry.row.steps[0]
            lines.append([config_cell(entry), bank.shots, *_in_bold(errors, trained)])
    last = max((len(line) - 3 for line in lines), default=0)
    padded = [[*line, *[""] * (last + 3 - len(line))] for line in lines]
    return _table(["preset", "K", *(f"step {step}" for step in range(last + 1))], padded)


def transfer_table(results: Results) -> str:
    """The error at the trained inner step with other numbers of support points than in training, that in bold."""
    entries = [entry for entry in results.of_group(GOALS) if entry.cases(TRANSFER)]
    shots = sorted({case.shots for entry in entries for case in entry.cases(TRANSFER)} | {e.row.shots for e in entries})
    lines = []
    for entry in entries:
        by_shots = {case.shots: _mean_cell(entry, case) for case in entry.cases(TRANSFER)}
        by_shots |= {case.shots: f"**{_mean_cell(entry, case)}**" for case in entry.cases(FIRST_BANK)}
        lines.append([config_cell(entry), entry.row.steps[-1], *(by_shots.get(k, "") for k in shots)])
    return _table(["preset", "inner steps", *(f"K = {k}" for k in shots)], lines)


def outside_table(results: Results) -> str:
    """The error on tasks outside the ranges of training, one range at a time, beside that inside."""
    entries = [entry for entry in results.of_group(GOALS) if entry.cases(OUTSIDE)]
    titles = [*dict.fromkeys(case.title for entry in entries for case in entry.cases(OUTSIDE))]
    lines = []
    for entry in entries:
        by_title = {case.title: _mean_cell(entry, case) for case in entry.cases(OUTSIDE)}
        inside = entry.bank(kind=FIRST_BANK)
        first = _mean_cell(entry, inside) if inside else ""
        cells = [config_cell(entry), entry.row.shots, entry.row.steps[-1], first]
        lines.append([*cells, *(by_title.get(title, "") for title in titles)])
    return _table(["preset", "K", "inner steps", "inside", *titles], lines)


def gap_table(results: Results) -> str:
    """The errors of each seed by GAP's protocol, with their intervals."""
    lines = [
        [config_cell(entry), case.shots, entry.row.steps[-1], ", ".join(_by_seed(entry, case))]
        for entry in results.of_group(GOALS)
        for case in entry.cases(GAP)
    ]
    return _table(["preset", "K", "inner steps", "MSE of each seed"], lines)


def ablation_table(results: Results) -> str:
    """The errors of seed 0 of ABLATED, and of the same training without one of its parts."""
    ablations = [*results.of_group(ABLATIONS)]
    complete = [entry for entry in results.entries if entry.row.name == ABLATED and ablations]
    lines = []
    for entry in [*complete, *ablations]:
        run, bank, step = entry.runs[0], entry.bank(), entry.row.steps[0]
        if bank is None:
            continue
        title = entry.row.title or "complete"
        if run.diverged_step is not None:
            lines.append([title, f"diverged at outer step {run.diverged_step:,}", *[""] * (len(SPREAD) + 1)])
            continue
        errors = run.at(bank, step)
        lines.append([title, error_cell(errors), *spread_cells([errors]), f"{run.num_values:,}"])
    return _table(["training", "MSE", *SPREAD, "learned values"], lines)


def engine_table(results: Results) -> str:
    """The errors of one training by each engine and in float64, and the ratio of the largest to the smallest."""
    lines: list[list[object]] = []
    by_preset: dict[str, list[PublishedRow]] = {}
    for entry in results.of_group(ENGINES):
        by_preset.setdefault(entry.row.preset, []).append(entry)
    for preset, entries in by_preset.items():
        means = []
        for entry in entries:
            bank, step = entry.bank(), entry.row.steps[0]
            if bank is not None:
                errors = entry.runs[0].at(bank, step)
                means.append(errors.mean)
                cells = [f"`{preset}`", f"{entry.runs[0].outer_steps:,}", entry.row.title, bank.shots, step]
                lines.append([*cells, error_cell(errors), training_cell(entry)])
        if len(means) > 1:
            lines.append([f"`{preset}`", "", "largest / smallest", "", "", f"{max(means) / min(means):.3g}", ""])
    return _table(["preset", "outer steps", "computed by", "K", "inner steps", "MSE", "training"], lines)


def _mean_cell(entry: PublishedRow, case: Case) -> str:
    """The mean over seeds after the last inner step that the tables show."""
    return format_cell(mean(entry.means(case, entry.row.steps[-1])))


def _by_seed(entry: PublishedRow, case: Case) -> list[str]:
    return [error_cell(run.at(case, entry.row.steps[-1])) for run in entry.runs]


def _in_bold(cells: Sequence[str], index: int) -> list[str]:
    return [f"**{cell}**" if i == index else cell for i, cell in enumerate(cells)]


def _table(header: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A table, or nothing where there are no lines."""
    return table(header, lines) if lines else ""
