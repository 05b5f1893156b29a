"""Figures of trained runs, comparisons and benchmarks, written to files."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from maml_cli.core import Params
from maml_cli.errors import ConfigError, FileError
from maml_cli.evaluation import (
    Evaluation,
    OnTasks,
    Protocol,
    TrainedRun,
    evaluate_run,
    ignore_tasks,
    mean,
)
from maml_cli.reporting import figures, training_figures
from maml_cli.reporting.animation import save_animation
from maml_cli.reporting.canvas import Figure, save_figure
from maml_cli.reporting.figure_kinds import ANIMATION_FORMATS, FIGURES, drawing_function
from maml_cli.reporting.figure_request import (
    DEFAULT_CHOICES,
    FigureChoices,
    FigureRequest,
    run_name,
    trained_on,
)
from maml_cli.reporting.fit_kinds import adapt, fit
from maml_cli.reporting.format import plural
from maml_cli.reporting.task_kinds import landscape, path, tail, tasks
from maml_cli.reporting.training_figures import Trace, TrainingTraces
from maml_cli.runs import OUTPUTS, make_folder, metrics

__all__ = [
    "LOSS_LABELS",
    "LOSS_NAMES",
    "adapt",
    "alpha",
    "applicable",
    "curve",
    "draw",
    "drawable",
    "fit",
    "landscape",
    "path",
    "read_log",
    "steps",
    "tail",
    "tasks",
]

LOSS_LABELS = {
    "query": "Meta-training query loss",
    "reptile": "Loss on the points adapted to",
    "joint": "Training loss without adapting",
}
"""outer.meta_gradient -> the loss in metrics.jsonl."""
LOSS_NAMES = {"mse": "MSE", "half_mse": "MSE / 2", "l1": "L1", "huber": "Huber"}
"""inner.loss -> its name."""


def drawable(run: TrainedRun) -> list[str]:
    """The kinds of figures that `all` draws of a run: without metrics.jsonl there are none over outer steps."""
    return [name for name in applicable(run) if not FIGURES[name].needs_metrics or _has_metrics(run)]


def applicable(run: TrainedRun) -> list[str]:
    """The kinds of figures that `all` draws of a learner as this one: where nothing takes gradient steps, there is none
    of alpha."""
    is_without_alpha = not run.experiment.alpha_groups
    return [name for name, kind in FIGURES.items() if not (kind.on_request or (is_without_alpha and name == "alpha"))]


def draw(
    run: TrainedRun,
    protocol: Protocol,
    *,
    kinds: Sequence[str],
    file_format: str | None = None,
    out: Path | None,
    choices: FigureChoices = DEFAULT_CHOICES,
    on_tasks: OnTasks = ignore_tasks,
    evaluation: Evaluation | None = None,
) -> list[Path]:
    """Draw each of `kinds` as KIND.`file_format`, by default in the first of its formats, in the directory `out`.
    Returns the files.

    By default `out` is `plots` in the run directory, or `plots` next to a checkpoint outside one; for a published run
    that came with the package it is `outputs/plots/NAME`.

    Tasks have the first K of `protocol`, by default the K of training; of a range, its largest. `evaluation` is one of
    the run by `protocol`, if it is at hand.

    Raises KeyError for a kind that is not in FIGURES, FileError if it needs metrics.jsonl and there is none, and
    ConfigError if `choices` do not fit the run, or the text of a figure does not fit into its size.
    """
    if not protocol.shots:
        protocol = protocol._replace(shots=(run.config.tasks.max_support,))
    request = FigureRequest(run, protocol, choices, on_tasks, evaluation)
    functions = {kind: drawing_function(kind) for kind in kinds}
    for kind in kinds:
        if FIGURES[kind].needs_metrics and not _has_metrics(run):
            raise FileError(f"{run.checkpoint.file}: no metrics.jsonl around it, from which {kind} is drawn")
    directory = out or _default_directory(run)
    if out is None and directory.is_symlink():
        raise FileError(f"{directory}: a symbolic link, through which nothing is written; give a directory with --out")
    make_folder(directory)
    files = []
    for kind, function in functions.items():
        suffix = file_format or FIGURES[kind].formats[0]
        save = save_animation if suffix in ANIMATION_FORMATS else save_figure
        files.append(save(partial(function, request), directory / f"{kind}.{suffix}", choices.style))
    return files


def _default_directory(run: TrainedRun) -> Path:
    checkpoint = run.checkpoint
    if checkpoint.name:
        return OUTPUTS / "plots" / checkpoint.name
    return (checkpoint.run or checkpoint.file.parent) / "plots"


def curve(request: FigureRequest) -> Figure:
    """Losses and validation errors up to the outer step of the checkpoint."""
    run = request.run
    trained = run.checkpoint.config
    log = read_log(run)
    losses = _until([(record.step, record.loss) for record in log.losses], run)
    is_likelihood = trained.inner.ridge.noise is not None
    name = "NLL" if is_likelihood else LOSS_NAMES[trained.inner.loss]
    evaluations = [
        (record.step, record.grid_mse if run.measure == "mse" else record.grid_mae) for record in log.evaluations
    ]
    before, after = ([(step, [errors[index] for errors in runs]) for step, runs in evaluations] for index in (0, -1))
    steps = len(evaluations[0][1][0]) - 1 if evaluations else trained.inner.steps
    varies = len(trained.tasks.trained_shots) > 1
    validated = f", validation K = {trained.tasks.max_support}" if varies else ""
    return training_figures.curve_figure(
        TrainingTraces(
            () if is_likelihood else losses,
            _until(before, run),
            _until(after, run),
            steps,
            nll=losses if is_likelihood else (),
        ),
        loss_label=f"{LOSS_LABELS[trained.outer.meta_gradient]} ({name})",
        measure=run.measure,
        floor=run.experiment.family.best_nonadaptive_error(run.measure),
        title=f"{run_name(run)}: training, {trained_on(run)}{validated}",
        style=request.style,
    )


def steps(request: FigureRequest) -> Figure:
    """Errors on test tasks by inner step, with baselines."""
    evaluation = request.evaluation
    if evaluation is None:
        (evaluation,) = evaluate_run(request.run, request.protocol, on_tasks=request.on_tasks).results
    tasks = plural(evaluation.num_tasks, "test task")
    title = f"{run_name(request.run)}: {tasks}, K = {evaluation.shots}, 95 % intervals"
    return figures.steps_figure(evaluation, measure=request.run.measure, title=title, style=request.style)


def _mean_by_step(alphas: Params, runs: Sequence[int]) -> dict[str, list[float]]:
    """The alpha of each inner step by key, averaged over `runs` and over the elements of the key."""
    return {key: value[runs].mean(dim=(0, -2, -1)).tolist() for key, value in alphas.items()}


def alpha(request: FigureRequest) -> Figure:
    """Alphas, averaged over runs and over the elements of each key, up to the outer step of the checkpoint."""
    run = request.run
    config = run.checkpoint.config.inner.alpha
    active = [*run.run_index.values()]
    alphas = run.experiment.alphas(run.meta_params.rule_params)
    if not alphas:
        raise ConfigError(f"{run.name}: has no alpha to draw: its head is solved for, without gradient steps")
    final = _mean_by_step(alphas, active)
    low, high = config.init_range
    start = {key: [low] * len(values) for key, values in final.items()}
    if low < high:
        first = run.experiment.init_meta_params(run.checkpoint.config.seeds)
        start = _mean_by_step(run.experiment.alphas(first.rule_params), active)
    traces: dict[str, list[tuple[int, list[float]]]] = {key: [(0, values)] for key, values in start.items()}
    for record in read_log(run).losses:
        for key, by_run in record.alpha.items():
            by_step = zip(*(values for values in by_run if not all(map(math.isnan, values))), strict=True)
            if means := [mean(values) for values in by_step]:
                traces[key].append((record.step, means))
    if not config.learned:
        for key, values in start.items():
            traces[key].append((run.checkpoint.step, values))
    granularity = f"learned per {config.per}{' (mean)' if config.per == 'parameter' else ''}"
    description = granularity if config.learned else f"fixed at {config.init_in_words}, not learned"
    return training_figures.alpha_figure(
        {key: _until(trace, run) for key, trace in traces.items()},
        is_learned=config.learned,
        title=f"{run_name(run)}: alpha, {description}; {trained_on(run)}",
        style=request.style,
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
