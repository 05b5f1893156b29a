"""Figures of trained runs, comparisons and benchmarks, written to files."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maml_cli.errors import ConfigError, FileError
from maml_cli.evaluation import Comparison, OnTasks, Protocol, TrainedRun, evaluate_run, fit_tasks, ignore_tasks, mean
from maml_cli.reporting import figures, training_figures
from maml_cli.reporting.canvas import Figure, label_text, save_figure
from maml_cli.reporting.figure_kinds import FIGURES, drawing_function
from maml_cli.reporting.figures import Curve
from maml_cli.reporting.format import plural
from maml_cli.reporting.training_figures import Trace, TrainingTraces
from maml_cli.runs import OUTPUTS, make_folder, metrics

NUM_FITS = 6
MAX_NAME = 40
"""Characters of the name of a run in a title, which has more words on its line."""
MAX_LABEL = 200
"""Characters of the name of a run in a legend, which cuts it to the width of the figure."""

LOSS_LABELS = {
    "query": "Meta-training query loss",
    "reptile": "Loss on the points adapted to",
    "joint": "Training loss without adapting",
}
"""outer.meta_gradient -> the loss in metrics.jsonl."""
LOSS_NAMES = {"mse": "MSE", "l1": "L1", "huber": "Huber"}
"""inner.loss -> its name."""


class FigureRequest(NamedTuple):
    """A figure of a run.

    run: the trained run.
    protocol: test tasks, K and inner steps of an evaluation.
    show_steps: inner steps after which fits are drawn; empty for the default, see `fit`.
    on_tasks: called after each chunk of tasks of an evaluation.
    """

    run: TrainedRun
    protocol: Protocol
    show_steps: Sequence[int] = ()
    on_tasks: OnTasks = ignore_tasks


def drawable(run: TrainedRun) -> list[str]:
    """The kinds of figures that can be drawn of a run: without metrics.jsonl there are none over outer steps."""
    return [name for name, kind in FIGURES.items() if not kind.needs_metrics or _has_metrics(run)]


def draw(
    run: TrainedRun,
    protocol: Protocol,
    *,
    kinds: Sequence[str],
    file_format: str,
    out: Path | None,
    show_steps: Sequence[int] = (),
    on_tasks: OnTasks = ignore_tasks,
) -> list[Path]:
    """Draw each of `kinds` as KIND.`file_format` in the directory `out`. Returns the files.

    By default `out` is `plots` in the run directory, or `plots` next to a checkpoint outside one; for a published run
    that came with the package it is `outputs/plots/NAME`.

    Tasks have the first K of `protocol`, by default the K of training; of a range, its largest.

    Raises KeyError for a kind that is not in FIGURES, FileError if it needs metrics.jsonl and there is none, and
    ConfigError if `show_steps` exceed the inner steps of `protocol`.
    """
    if not protocol.shots:
        protocol = protocol._replace(shots=(run.config.tasks.max_support,))
    request = FigureRequest(run, protocol, show_steps, on_tasks)
    functions = {kind: drawing_function(kind) for kind in kinds}
    for kind in kinds:
        if FIGURES[kind].needs_metrics and not _has_metrics(run):
            raise FileError(f"{run.checkpoint.file}: no metrics.jsonl around it, from which {kind} is drawn")
    directory = out or _default_directory(run)
    if out is None and directory.is_symlink():
        raise FileError(f"{directory}: a symbolic link, through which nothing is written; give a directory with --out")
    make_folder(directory)
    return [
        save_figure(lambda function=function: function(request), directory / f"{kind}.{file_format}")  # type: ignore[misc]
        for kind, function in functions.items()
    ]


def _default_directory(run: TrainedRun) -> Path:
    checkpoint = run.checkpoint
    if checkpoint.name:
        return OUTPUTS / "plots" / checkpoint.name
    return (checkpoint.run or checkpoint.file.parent) / "plots"


def draw_comparison(comparisons: Sequence[Comparison], out: Path) -> list[Path]:
    """Draw a figure for each K: to `out` for a single K, else to `out` with K in its name. Returns the files."""
    files = []
    for comparison in comparisons:
        file = out if len(comparisons) == 1 else out.with_stem(f"{out.stem}-{comparison.shots}shot")
        curves = [
            Curve(
                label_text(run.label, MAX_LABEL),
                [getattr(step.grid, comparison.measure) for step in run.steps],
                run.compared_step,
            )
            for run in comparison.runs
        ]
        title = f"{plural(comparison.num_tasks, 'test task')}, K = {comparison.shots}, 95 % intervals"
        options = {"measure": comparison.measure, "ringed": "as compared", "title": title}
        files.append(draw_curves(curves, file, **options, grid_name=comparison.grid_name))
    return files


def draw_curves(curves: Sequence[Curve], file: Path, **options: str) -> Path:
    """Draw the errors of several learners against inner steps to `file`; the options are those of
    `figures.curves_figure`."""
    make_folder(file.parent)
    return save_figure(lambda: figures.curves_figure(curves, **options), file)


def draw_growth(rows: Sequence[Mapping[str, Any]], file: Path) -> Path:
    """Draw the time of an outer step against the size of its work to `file`.

    Rows have `axis` (name of the size), `name` (engine), `value` (size) and `milliseconds`, None if not measured.
    """
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row["milliseconds"] is not None:
            points.setdefault(row["axis"], {}).setdefault(row["name"], []).append((row["value"], row["milliseconds"]))
    return save_figure(lambda: training_figures.growth_figure(points), file)


def fit(request: FigureRequest) -> Figure:
    """Fits to six test tasks, by default before adapting and after the first, the trained and the last inner step."""
    run, protocol = request.run, request.protocol
    if request.show_steps and protocol.steps is None:
        protocol = protocol._replace(steps=max(request.show_steps))
    fits = fit_tasks(run, protocol._replace(num_tasks=NUM_FITS))
    steps, trained = len(fits[0].predictions) - 1, run.config.trained_steps
    if request.show_steps and max(request.show_steps) > steps:
        raise ConfigError(f"--show-steps {max(request.show_steps)}: must be at most {steps}, the --steps to adapt")
    default = {step for step in (0, 1, trained, steps) if step <= steps}
    num_shots = len(fits[0].support_x)
    title = f"{_name(run)}: {plural(len(fits), 'test task')}, K = {num_shots}, {plural(steps, 'inner step')}"
    return figures.fit_figure(
        fits,
        show_steps=sorted(set(request.show_steps) or default),
        trained_steps=trained,
        measure=run.measure,
        title=title,
    )


def curve(request: FigureRequest) -> Figure:
    """Losses and validation errors up to the outer step of the checkpoint."""
    run = request.run
    trained = run.checkpoint.config
    log = read_log(run)
    losses = [(record.step, record.loss) for record in log.losses]
    evaluations = [
        (record.step, record.grid_mse if run.measure == "mse" else record.grid_mae) for record in log.evaluations
    ]
    before, after = ([(step, [errors[index] for errors in runs]) for step, runs in evaluations] for index in (0, -1))
    steps = len(evaluations[0][1][0]) - 1 if evaluations else trained.inner.steps
    varies = len(trained.tasks.trained_shots) > 1
    validated = f", validation K = {trained.tasks.max_support}" if varies else ""
    return training_figures.curve_figure(
        TrainingTraces(_until(losses, run), _until(before, run), _until(after, run), steps),
        loss_label=f"{LOSS_LABELS[trained.outer.meta_gradient]} ({LOSS_NAMES[trained.inner.loss]})",
        measure=run.measure,
        floor=run.experiment.family.best_nonadaptive_error(run.measure),
        title=f"{_name(run)}: training, {_trained_on(run)}{validated}",
    )


def steps(request: FigureRequest) -> Figure:
    """Errors on test tasks by inner step, with baselines."""
    (evaluation,) = evaluate_run(request.run, request.protocol, on_tasks=request.on_tasks).results
    tasks = plural(evaluation.num_tasks, "test task")
    title = f"{_name(request.run)}: {tasks}, K = {evaluation.shots}, 95 % intervals"
    return figures.steps_figure(evaluation, measure=request.run.measure, title=title)


def alpha(request: FigureRequest) -> Figure:
    """Alphas, averaged over runs and over the elements of each key, up to the outer step of the checkpoint."""
    run = request.run
    config = run.checkpoint.config.inner.alpha
    active = [*run.run_index.values()]
    alphas = run.experiment.alphas(run.meta_params.rule_params)
    final = {key: value[active].mean(dim=(0, -2, -1)).tolist() for key, value in alphas.items()}
    traces: dict[str, list[tuple[int, list[float]]]] = {
        key: [(0, [config.init] * len(values))] for key, values in final.items()
    }
    for record in read_log(run).losses:
        for key, by_run in record.alpha.items():
            by_step = zip(*(values for values in by_run if not all(map(math.isnan, values))), strict=True)
            if means := [mean(values) for values in by_step]:
                traces[key].append((record.step, means))
    if not config.learned:
        for key, values in final.items():
            traces[key].append((run.checkpoint.step, [config.init] * len(values)))
    granularity = f"learned per {config.per}{' (mean)' if config.per == 'parameter' else ''}"
    description = granularity if config.learned else f"fixed at {config.init:g}, not learned"
    return training_figures.alpha_figure(
        {key: _until(trace, run) for key, trace in traces.items()},
        is_learned=config.learned,
        title=f"{_name(run)}: alpha, {description}; {_trained_on(run)}",
    )


def _has_metrics(run: TrainedRun) -> bool:
    return run.checkpoint.run is not None and (run.checkpoint.run / "metrics.jsonl").exists()


def read_log(run: TrainedRun) -> metrics.Log:
    """The log around the checkpoint of `run`; records that do not fit its config are skipped."""
    assert run.checkpoint.run is not None, "checked by draw"
    config = run.checkpoint.config
    lengths = {key: value.shape[1] for key, value in run.experiment.alphas(run.meta_params.rule_params).items()}
    shape = metrics.LogShape(config.outer.steps, len(config.seeds), config.inner.steps + 1, lengths)
    return metrics.read_log(run.checkpoint.run, shape)


def _until(trace: Trace, run: TrainedRun) -> Trace:
    """The points of a trace up to the outer step of the checkpoint."""
    return [(step, values) for step, values in trace if step <= run.checkpoint.step]


def _trained_on(run: TrainedRun) -> str:
    config = run.checkpoint.config
    return f"K = {config.tasks.support_in_words}, {plural(config.inner.steps, 'inner step')}"


def _name(run: TrainedRun) -> str:
    """The name of the run directory, or of a checkpoint outside one."""
    directory = run.checkpoint.run
    return label_text(
        os.path.basename(os.path.realpath(directory)) if directory else run.checkpoint.file.stem, MAX_NAME
    )
