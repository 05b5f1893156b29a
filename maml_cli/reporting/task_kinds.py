"""Figures of the single test tasks of a run, from a request: their errors, their parameters, and themselves."""

from maml_cli.evaluation import (
    TaskErrors,
    landscape_parameters,
    learner_task_errors,
    sample_lines,
)
from maml_cli.evaluation import landscape as mean_errors
from maml_cli.reporting import task_figures
from maml_cli.reporting.canvas import Figure
from maml_cli.reporting.figure_request import FigureRequest, point_labels, run_name
from maml_cli.reporting.format import plural

NUM_PATHS = 30
NUM_FUNCTIONS = 20


def path(request: FigureRequest) -> Figure:
    """Errors of single test tasks along the inner steps, by default thirty, with their median."""
    task_errors = _task_errors(request)
    return task_figures.path_figure(
        task_errors,
        trained_steps=request.run.config.trained_steps,
        num_lines=request.choices.tasks_shown or NUM_PATHS,
        title=_title(request, task_errors),
        style=request.style,
    )


def tail(request: FigureRequest) -> Figure:
    """The distribution of the errors of test tasks, by default before adapting, after the first and the trained inner
    step."""
    trained = request.run.config.trained_steps
    task_errors = _task_errors(request)
    last = len(task_errors.errors) - 1
    return task_figures.tail_figure(
        task_errors,
        show_steps=sorted({step for step in request.choices.show_steps or (0, 1, trained) if step <= last}),
        trained_steps=trained,
        title=_title(request, task_errors),
        style=request.style,
    )


def landscape(request: FigureRequest) -> Figure:
    """The mean error after the trained inner steps over two parameters of the test tasks."""
    names = landscape_parameters(request.run, request.protocol)
    task_errors = _task_errors(request)
    step = min(request.run.config.trained_steps, len(task_errors.errors) - 1)
    return task_figures.landscape_figure(
        mean_errors(task_errors, names, step=step),
        measure=task_errors.measure,
        title=f"{_title(request, task_errors)}, {plural(step, 'inner step')}",
        style=request.style,
    )


def tasks(request: FigureRequest) -> Figure:
    """A sample of the functions of test tasks, by default twenty, and the mean of all."""
    sample = sample_lines(request.run, request.protocol, num_lines=request.choices.tasks_shown or NUM_FUNCTIONS)
    return task_figures.tasks_figure(
        sample,
        title=f"{run_name(request.run)}: tasks of the family {request.run.config.tasks.family}",
        labels=point_labels(request.run.config),
        style=request.style,
    )


def _task_errors(request: FigureRequest) -> TaskErrors:
    protocol, shown = request.protocol, request.choices.show_steps
    if shown and protocol.steps is None:
        protocol = protocol._replace(steps=max(shown))
    return learner_task_errors(request.run, protocol, on_tasks=request.on_tasks)


def _title(request: FigureRequest, task_errors: TaskErrors) -> str:
    tasks = task_errors.test_tasks
    num_seeds = len(request.run.run_index)
    seeds = f", mean over {num_seeds} seeds" if num_seeds > 1 else ""
    return f"{run_name(request.run)}: {plural(tasks.num_tasks, 'test task')}, K = {tasks.num_shots}{seeds}"
