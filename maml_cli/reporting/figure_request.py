"""Requests of figures of a run, and the names and labels that figures of runs share."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from maml_cli.config import Config
from maml_cli.evaluation import Evaluation, OnTasks, Protocol, TrainedRun, ignore_tasks
from maml_cli.reporting.canvas import label_text
from maml_cli.reporting.figure_style import DEFAULT_STYLE, FigureStyle
from maml_cli.reporting.format import plural

MAX_NAME = 40
"""Characters of the name of a run in a title, which has more words on its line."""
MAX_LABEL = 200
"""Characters of the name of a run in a legend, which cuts it to the width of the figure."""


class FigureChoices(NamedTuple):
    """The content and the style of a figure, as far as the user chooses them.

    show_steps: inner steps after which fits are drawn; empty for the default, see `fit`.
    tasks_shown: number of single tasks that are drawn; None for the default of the kind.
    other_runs: further runs that fits are drawn of, on the same tasks.
    labels: of the run and of the further ones; an empty one stands for the name of its run.
    style: of the figure.
    """

    show_steps: Sequence[int] = ()
    tasks_shown: int | None = None
    other_runs: Sequence[TrainedRun] = ()
    labels: Sequence[str] = ()
    style: FigureStyle = DEFAULT_STYLE


DEFAULT_CHOICES = FigureChoices()


class FigureRequest(NamedTuple):
    """A figure of a run.

    run: the trained run.
    protocol: test tasks, K and inner steps of an evaluation.
    choices: content and style.
    on_tasks: called after each chunk of tasks of an evaluation.
    evaluation: of the run by the protocol; None where it is still to be made.
    """

    run: TrainedRun
    protocol: Protocol
    choices: FigureChoices = DEFAULT_CHOICES
    on_tasks: OnTasks = ignore_tasks
    evaluation: Evaluation | None = None

    @property
    def style(self) -> FigureStyle:
        """The style of the figure."""
        return self.choices.style


def run_name(run: TrainedRun) -> str:
    """The name of a published run or of the run directory, or of a checkpoint outside one."""
    checkpoint = run.checkpoint
    directory = os.path.basename(os.path.realpath(checkpoint.run)) if checkpoint.run else ""
    return label_text(checkpoint.name or directory or checkpoint.file.stem, MAX_NAME)


def drawn_seed(run: TrainedRun) -> str:
    """The seed of a run of several seeds whose predictions are drawn, for a title; empty for a run of one seed."""
    return f", seed {next(iter(run.run_index))}" if len(run.run_index) > 1 else ""


def trained_on(run: TrainedRun) -> str:
    """K and the number of inner steps of the training of a run, in words."""
    config = run.checkpoint.config
    return f"K = {config.tasks.support_in_words}, {plural(config.inner.steps, 'inner step')}"


def point_labels(config: Config) -> tuple[str, str]:
    """The labels of axes of inputs and targets: the columns of the user's own table, else x and y."""
    if config.tasks.family != "data":
        return "x", "y"
    data = config.tasks.data
    return label_text(data.x_column, MAX_NAME), label_text(data.y_column, MAX_NAME)
