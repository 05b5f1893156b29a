"""Figures of several learners: comparisons of runs, published results and benchmarks, written to files."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maml_cli.evaluation import Comparison, NumericDifference
from maml_cli.reporting import figures, training_figures
from maml_cli.reporting.canvas import label_text, save_figure
from maml_cli.reporting.figure_request import MAX_LABEL
from maml_cli.reporting.figure_style import DEFAULT_STYLE, FigureStyle
from maml_cli.reporting.figures import Curve
from maml_cli.reporting.format import plural
from maml_cli.runs import make_folder


def draw_comparison(
    comparisons: Sequence[Comparison],
    out: Path,
    *,
    labels: Sequence[str] = (),
    difference: NumericDifference | None = None,
    style: FigureStyle = DEFAULT_STYLE,
) -> list[Path]:
    """Draw a figure for each K: to `out` for a single K, else to `out` with K in its name. Returns the files.

    Runs have the names of `labels`, those whose label is empty their own. Where their configs differ in one number,
    `difference`, they have colours in its order, and it is their name.
    """
    files = []
    ranks: Sequence[float | None] = [None] * len(comparisons[0].runs)
    names = [run.label for run in comparisons[0].runs]
    if difference:
        ranks = difference.ranks
        names = [f"{difference.key} = {value:g}" for value in difference.values]
    names = [label or name for label, name in itertools.zip_longest(labels, names)]
    for comparison in comparisons:
        file = out if len(comparisons) == 1 else out.with_stem(f"{out.stem}-{comparison.shots}shot")
        curves = [
            Curve(
                label_text(name, MAX_LABEL),
                [getattr(step.grid, comparison.measure) for step in run.steps],
                run.compared_step,
                rank,
            )
            for run, name, rank in zip(comparison.runs, names, ranks, strict=True)
        ]
        title = f"{plural(comparison.num_tasks, 'test task')}, K = {comparison.shots}, 95 % intervals"
        options = {"measure": comparison.measure, "ringed": "as compared", "title": title}
        points = {"grid_name": comparison.grid_name, "baselines": comparison.baselines}
        files.append(draw_curves(curves, file, style=style, **options, **points))
    return files


def draw_curves(curves: Sequence[Curve], file: Path, *, style: FigureStyle = DEFAULT_STYLE, **options: Any) -> Path:
    """Draw the errors of several learners against inner steps to `file`; the options are those of
    `figures.curves_figure`."""
    make_folder(file.parent)
    return save_figure(lambda: figures.curves_figure(curves, style=style, **options), file, style)


def draw_growth(rows: Sequence[Mapping[str, Any]], file: Path) -> Path:
    """Draw the time of an outer step against the size of its work to `file`.

    Rows have `axis` (name of the size), `name` (engine), `value` (size) and `milliseconds`, None if not measured.
    """
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row["milliseconds"] is not None:
            points.setdefault(row["axis"], {}).setdefault(row["name"], []).append((row["value"], row["milliseconds"]))
    return save_figure(lambda: training_figures.growth_figure(points), file)
