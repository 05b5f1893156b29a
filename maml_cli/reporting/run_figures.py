"""The figures of a run, written to files."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from maml_cli.errors import FileError
from maml_cli.evaluation import Comparison, Protocol, TrainedRun, evaluate_run, fit_tasks, mean
from maml_cli.reporting import figures
from maml_cli.reporting.figures import Curve
from maml_cli.runs import read_lines

KINDS = ("fit", "curve", "steps", "alpha")
NUM_FITS = 6


def drawable(opened: TrainedRun) -> list[str]:
    """The kinds that can be drawn of this checkpoint: without a log around it there is no trace over training."""
    run = opened.checkpoint.run
    logged = run is not None and (run / "metrics.jsonl").exists()
    return [kind for kind in KINDS if logged or kind in ("fit", "steps")]


def draw(run: TrainedRun, protocol: Protocol, *, kinds: Sequence[str], form: str, out: Path | None) -> list[Path]:
    """Draw each of `kinds` to `out`, by default the `plots` of the run or a `plots` beside a lone checkpoint."""
    drawings: Mapping[str, Callable[[], Figure]] = {
        "fit": lambda: _fit(run, protocol),
        "curve": lambda: _curve(run),
        "steps": lambda: _steps(run, protocol),
        "alpha": lambda: _alpha(run),
    }
    directory = out or (run.checkpoint.run or run.checkpoint.file.parent) / "plots"
    directory.mkdir(parents=True, exist_ok=True)
    return [_save(drawings[kind], directory / f"{kind}.{form}") for kind in kinds]


def draw_comparison(comparisons: Sequence[Comparison], out: Path) -> list[Path]:
    """One figure for each K: at `out` if there is one, else at `out` with the K in its name."""
    files = []
    for one in comparisons:
        file = out if len(comparisons) == 1 else out.with_stem(f"{out.stem}-{one.shots}shot")
        curves = [
            Curve(run.label, [getattr(step.grid, one.measure) for step in run.steps], run.compared_step)
            for run in one.runs
        ]
        title = f"{one.num_tasks:,} test tasks, K = {one.shots}, 95 % intervals"
        files.append(draw_curves(curves, file, measure=one.measure, title=title))
    return files


def draw_curves(curves: Sequence[Curve], file: Path, *, measure: str, title: str) -> Path:
    """Draw the errors of several learners against inner steps to `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return _save(lambda: figures.curves_figure(curves, measure=measure, title=title), file)


def draw_growth(rows: Sequence[Mapping[str, Any]], file: Path) -> Path:
    """Draw how the time of an outer step grows with what it does to `file`."""
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row["milliseconds"] is not None:
            points.setdefault(row["axis"], {}).setdefault(row["name"], []).append((row["value"], row["milliseconds"]))
    return _save(lambda: figures.growth_figure(points), file)


def _save(figure: Callable[[], Figure], file: Path) -> Path:
    # No date inside, so that the same figure has the same bytes.
    undated: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(file.suffix, {})
    with matplotlib.rc_context(figures.STYLE):
        figure().savefig(file, dpi=200, metadata=undated)
    return file


def _fit(run: TrainedRun, protocol: Protocol) -> Figure:
    fits = fit_tasks(run, protocol._replace(num_tasks=NUM_FITS))
    steps, num_shots = len(fits[0].predictions) - 1, len(fits[0].support_x)
    title = f"{_name(run)}: six test tasks, K = {num_shots}, {_counted(steps, 'inner step')}"
    return figures.fit_figure(fits, measure=run.measure, title=title)


def _curve(opened: TrainedRun) -> Figure:
    records = [record for record in _metrics(opened) if record["step"] <= opened.checkpoint.step]
    trained = opened.checkpoint.config
    losses = [(record["step"], _runs(record["loss"])) for record in records if "loss" in record]
    measure = f"grid_{opened.measure}"
    found = [(record["step"], _runs_by_step(record["eval"][measure])) for record in records if "eval" in record]
    floor = opened.experiment.family.best_nonadaptive_error(opened.measure)
    kind = {
        "query": "query loss",
        "reptile": "loss on the query points, which adapting saw",
        "joint": "loss on all points, without adapting",
    }[trained.outer.meta_gradient]
    title = f"{_name(opened)}: training, K = {trained.tasks.num_support}, {_counted(trained.inner.steps, 'inner step')}"
    return figures.curve_figure(
        losses,
        found,
        loss_label=f"meta-training {kind} ({trained.inner.loss})",
        measure=opened.measure,
        floor=floor,
        title=title,
    )


def _steps(run: TrainedRun, protocol: Protocol) -> Figure:
    (evaluation,) = evaluate_run(run, protocol)
    trained = _counted(run.config.inner.steps, "inner step")
    title = (
        f"{_name(run)}, trained for {trained}: {evaluation.num_tasks:,} test tasks, K = {evaluation.shots}, "
        f"95 % intervals"
    )
    return figures.steps_figure(evaluation, measure=run.measure, title=title)


def _alpha(opened: TrainedRun) -> Figure:
    alpha = opened.checkpoint.config.inner.alpha
    alphas = opened.experiment.alphas(opened.meta_params.rule_params)
    places = [*opened.run_index.values()]
    now = {key: value[places].mean(dim=(0, -2, -1)).tolist() for key, value in alphas.items()}
    trace: dict[str, list[tuple[int, list[float]]]] = {key: [(0, [alpha.init] * len(v))] for key, v in now.items()}
    if alpha.learned:
        for record in _metrics(opened):
            if "alpha" in record and record["step"] <= opened.checkpoint.step:
                for key, values in record["alpha"].items():
                    trace[key].append((record["step"], [mean(each) for each in _runs_by_step(values)]))
    else:
        for key, values in now.items():
            trace[key].append((opened.checkpoint.step, values))
    how = f"learned per {alpha.per}{' (mean)' if alpha.per == 'parameter' else ''}" if alpha.learned else "fixed"
    count = _counted(opened.config.inner.steps, "inner step")
    return figures.alpha_figure(
        trace, title=f"{_name(opened)}: alpha, {how}; K = {opened.config.tasks.num_support}, {count}"
    )


def _runs(value: Any) -> list[float]:
    """What a line of the log has of each run that goes on, be it one or several."""
    return [math.nan if one is None else one for one in (value if isinstance(value, list) else [value])]


def _runs_by_step(values: list[Any]) -> list[list[float]]:
    """The same for what has a value for each inner step: for each of those, the values of the runs."""
    going = [run for run in values if run is not None] if any(isinstance(v, list) for v in values) else [values]
    return [[math.nan if one is None else one for one in step] for step in zip(*going, strict=True)]


def _metrics(opened: TrainedRun) -> list[dict[str, Any]]:
    run = opened.checkpoint.run
    if run is None or not (run / "metrics.jsonl").exists():
        raise FileError(f"{opened.checkpoint.file}: no metrics.jsonl around it, which curve and alpha are drawn from")
    return read_lines(run / "metrics.jsonl")


def _name(opened: TrainedRun) -> str:
    run = opened.checkpoint.run
    return run.resolve().name if run else opened.checkpoint.file.stem


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
