"""The published figures, drawn from the results, from the benchmark, and from the trained quickstart."""

from pathlib import Path

from maml_cli.dev.benchmark_document import Benchmark
from maml_cli.dev.results_cases import FIRST_BANK, Case
from maml_cli.dev.results_document import PublishedRow, Results
from maml_cli.evaluation import Statistic
from maml_cli.reporting import Curve, draw, draw_curves, draw_growth

LEARNERS = {
    "MAML": "finn-{K}shot",
    "CAVIA": "cavia-{K}shot",
    "Meta-SGD": "meta-sgd-{K}shot",
    "MAML++": "maml-plus-plus-{K}shot",
    "Best, one inner step": "best-1step-{K}shot",
    "Best, five inner steps": "best-{K}shot",
    "Head in closed form": "ridge-{K}shot",
    "Steps on the body, head in closed form": "ridge-body-{K}shot",
}
"""Lines of the figures of results: label -> name of the row, with K in place of {K}."""


def draw_results(results: Results, out: Path) -> list[Path]:
    """Draw errors against inner steps at K = 5 and K = 10, as far as there are results. Returns the files."""
    rows = {entry.row.name: entry for entry in results.entries}
    files = []
    for shots in (5, 10):
        names = {label: name.format(K=shots) for label, name in LEARNERS.items()}
        entries = {label: rows[name] for label, name in names.items() if name in rows}
        curves = [_curve(label, entry, bank) for label, entry in entries.items() if (bank := _drawable(entry, shots))]
        if curves:
            title = f"Finn's sinusoids, K = {shots}, seed 0, 95 % intervals over test tasks"
            file = out / f"results-{shots}shot.png"
            files.append(draw_curves(curves, file, measure="mse", ringed="as trained", title=title))
    return files


def draw_benchmark(benchmark: Benchmark, out: Path) -> list[Path]:
    """Draw the time of an outer step against its size; a smoke benchmark has no such figure. Returns the files."""
    if benchmark.scaling is None:
        return []
    rows = [
        {"axis": row.axis, "value": row.value, "name": row.timing.name, "milliseconds": row.timing.milliseconds}
        for row in benchmark.scaling.growth
    ]
    return [draw_growth(rows, out / "bench-growth.png")]


def draw_quickstart(run: Path, out: Path, num_tasks: int) -> list[Path]:
    """Draw the fits, and the errors on `num_tasks`, of the trained quickstart at `run`. Returns the files."""
    from maml_cli.evaluation import Protocol, open_run
    from maml_cli.runtime import torch_threads

    trained_run = open_run(run)
    with torch_threads(trained_run.config.run.threads):
        files = draw(trained_run, Protocol(num_tasks=num_tasks), kinds=["fit", "steps"], file_format="png", out=out)
    return [file.replace(out / f"quickstart-{file.name}") for file in files]


def _drawable(entry: PublishedRow, shots: int) -> Case | None:
    """The first bank at K = `shots`, if the first seed has errors on it."""
    bank = entry.bank(shots, kind=FIRST_BANK)
    return bank if bank and entry.runs[0].diverged_step is None else None


def _curve(label: str, entry: PublishedRow, bank: Case) -> Curve:
    """The errors of the first seed of a row on a bank, ringed at the trained number of inner steps."""
    statistics = [Statistic(errors.mean, errors.ci95, errors.median) for errors in entry.runs[0].errors[bank.name]]
    return Curve(label, statistics, entry.row.steps[0])
