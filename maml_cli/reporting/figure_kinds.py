"""The kinds of figures of a trained run: one row each, read by `maml plot` before matplotlib is imported."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

FILE_FORMATS = ("png", "svg", "pdf")
ANIMATION_FORMATS = ("gif", "mp4")


class FigureKind(NamedTuple):
    """A kind of figure.

    function: name of the function of `run_figures` that draws it; from a FigureRequest to a matplotlib Figure, or to an
        Animation where the formats are those.
    help: its description on the help page.
    needs_metrics: whether it is drawn from metrics.jsonl, which a checkpoint outside a run directory lacks.
    on_request: whether it is drawn only where it is named, and not as one of `all`.
    formats: of its files, the default first.
    """

    function: str
    help: str
    needs_metrics: bool = False
    on_request: bool = False
    formats: tuple[str, ...] = FILE_FORMATS


FIGURES = {
    "fit": FigureKind("fit", "predictions for six test tasks, before and after adapting"),
    "curve": FigureKind("curve", "losses over outer steps", needs_metrics=True),
    "steps": FigureKind("steps", "error against inner steps, with baselines"),
    "alpha": FigureKind("alpha", "alphas over outer steps", needs_metrics=True),
    "path": FigureKind("path", "errors of single tasks along the inner steps", on_request=True),
    "tail": FigureKind("tail", "distribution of the errors of single tasks", on_request=True),
    "landscape": FigureKind("landscape", "error over two parameters of the tasks", on_request=True),
    "tasks": FigureKind("tasks", "functions of the task distribution", on_request=True),
    "adapt": FigureKind("adapt", "the network adapting, animated", on_request=True, formats=ANIMATION_FORMATS),
}
"""Kind -> its row, in the order of drawing. A new figure is a function in `run_figures` and a row here."""


def drawing_function(kind: str) -> Callable[..., Any]:
    """The function that draws `kind`; raises KeyError for a name that is not in FIGURES."""
    function: Callable[..., Any] = getattr(import_module("maml_cli.reporting.run_figures"), FIGURES[kind].function)
    return function
