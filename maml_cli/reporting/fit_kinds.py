"""Figures of fits to test tasks: of one run, of several runs on the same tasks, and animated."""

import itertools
from collections.abc import Sequence

from maml_cli.errors import ConfigError
from maml_cli.evaluation import Protocol, TaskFit, TrainedRun, check_families, fit_tasks
from maml_cli.reporting import figures, fit_rows
from maml_cli.reporting.animation import Animation
from maml_cli.reporting.canvas import Figure, label_text
from maml_cli.reporting.figure_layout import columns_that_fit
from maml_cli.reporting.figure_request import MAX_NAME, FigureRequest, drawn_seed, point_labels, run_name
from maml_cli.reporting.fit_rows import FitRow
from maml_cli.reporting.format import plural

NUM_FITS = 6
NUM_IN_A_ROW = 3
"""Tasks of a figure with a row for each run, and of an animation."""
MOST_ANIMATED = 4
ROW_PANEL_EM = 11.0
"""Least width of a panel of a row, as a multiple of the font size: narrow figures show fewer tasks."""


def fit(request: FigureRequest) -> Figure:
    """Fits to six test tasks, by default before adapting and after the first, the trained and the last inner step.

    With further runs there is a row for each run, of the same three tasks.
    """
    choices, run = request.choices, request.run
    if choices.other_runs:
        return _rows(request)
    fits, num_shots = _fits(run, request, choices.tasks_shown or NUM_FITS)
    trained = run.config.trained_steps
    show_steps = _shown_steps(request, fits, trained)
    return figures.fit_figure(
        fits,
        show_steps=show_steps,
        trained_steps=trained,
        measure=run.measure,
        title=f"{run_name(run)}: {plural(len(fits), 'test task')}, K = {num_shots}, "
        f"{plural(show_steps[-1], 'inner step')}{drawn_seed(run)}",
        labels=point_labels(run.config),
        style=request.style,
    )


def _rows(request: FigureRequest) -> Figure:
    """Fits of several runs, a row each, by default after the inner steps that each was trained for."""
    choices = request.choices
    runs = [request.run, *choices.other_runs]
    check_families(runs)
    labels = [
        label or f"{run_name(run)}{drawn_seed(run)}" for label, run in itertools.zip_longest(choices.labels, runs)
    ]
    num_tasks = choices.tasks_shown or columns_that_fit(request.style, NUM_IN_A_ROW, em=ROW_PANEL_EM)
    fitted = [_fits(run, request, num_tasks) for run in runs]
    rows = [
        FitRow(label_text(label, MAX_NAME), fits, _shown_steps(request, fits, trained), trained, run.measure)
        for label, (fits, _), run in zip(labels, fitted, runs, strict=True)
        for trained in [run.config.trained_steps]
    ]
    fits, num_shots = fitted[0]
    return fit_rows.fit_rows_figure(
        rows,
        title=f"The same {plural(len(fits), 'test task')} for all, K = {num_shots}",
        labels=point_labels(request.run.config),
        style=request.style,
    )


def adapt(request: FigureRequest) -> Animation:
    """The network after each inner step on one to four test tasks, by default three, step by step."""
    shown = request.choices.tasks_shown or NUM_IN_A_ROW
    if shown > MOST_ANIMATED:
        raise ConfigError(f"--tasks-shown {shown}: must be from 1 to {MOST_ANIMATED} for --kind adapt")
    fits, num_shots = _fits(request.run, request, shown)
    return fit_rows.adapting(
        fits,
        trained_steps=request.run.config.trained_steps,
        measure=request.run.measure,
        title=f"{run_name(request.run)}{drawn_seed(request.run)}: K = {num_shots}",
        labels=point_labels(request.run.config),
        style=request.style,
    )


def _fits(run: TrainedRun, request: FigureRequest, count: int) -> tuple[list[TaskFit], int]:
    """Fits to the first `count` test tasks, and their number of support points; raises ConfigError for steps to show
    that exceed the inner steps."""
    protocol: Protocol = request.protocol._replace(num_tasks=max(count, 2))
    shown = request.choices.show_steps
    if shown and protocol.steps is None:
        protocol = protocol._replace(steps=max(shown))
    fits = fit_tasks(run, protocol)[:count]
    steps = len(fits[0].predictions) - 1
    if shown and max(shown) > steps:
        raise ConfigError(f"--show-steps {max(shown)}: must be at most {steps}, the --steps to adapt")
    return fits, len(fits[0].support_x)


def _shown_steps(request: FigureRequest, fits: Sequence[TaskFit], trained: int) -> list[int]:
    """The inner steps that are drawn: those asked for, or before adapting and after the first, the trained and the last
    step."""
    last = len(fits[0].predictions) - 1
    return sorted(set(request.choices.show_steps) or {step for step in (0, 1, trained, last) if step <= last})
