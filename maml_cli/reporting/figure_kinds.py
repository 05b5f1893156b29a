"""The kinds of figures of a trained run: one row each, read by `maml plot` before matplotlib is imported."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple


class FigureKind(NamedTuple):
    """A kind of figure.

    function: name of the function of `run_figures` that draws it; from a FigureRequest to a matplotlib Figure.
    help: its description on the help page.
    needs_metrics: whether it is drawn from metrics.jsonl, which a checkpoint outside a run directory lacks.
    """

    function: str
    help: str
    needs_metrics: bool = False


FIGURES = {
    "fit": FigureKind("fit", "predictions for six test tasks, before and after adapting"),
    "curve": FigureKind("curve", "losses over outer steps", needs_metrics=True),
    "steps": FigureKind("steps", "error against inner steps, with baselines"),
    "alpha": FigureKind("alpha", "alphas over outer steps", needs_metrics=True),
}
"""Kind -> its row, in the order of drawing. A new figure is a function in `run_figures` and a row here."""


def drawing_function(kind: str) -> Callable[..., Any]:
    """The function that draws `kind`; raises KeyError for a name that is not in FIGURES."""
    function: Callable[..., Any] = getattr(import_module("maml_cli.reporting.run_figures"), FIGURES[kind].function)
    return function
