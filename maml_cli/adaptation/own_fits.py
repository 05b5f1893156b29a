"""Fits to tasks of the user's own on a fine grid, for figures."""

from typing import NamedTuple

import torch

from maml_cli.adaptation.arrays import Arrays
from maml_cli.adaptation.fitted import Learner
from maml_cli.adaptation.table_fit import TableFit, fitted_to

NUM_POINTS = 301


class OwnFit(NamedTuple):
    """A fit to a task whose function is not known.

    label: of the task; empty for the only one.
    x: inputs of a fine grid, N.
    predictions: mean over seeds after 0, 1, ..., S inner steps, (S + 1) x N.
    band: the lower and the upper end of a band, N each; None without one.
    support_x, support_y, query_x, query_y: the points.
    errors: mean squared errors on the support points before and after all inner steps.
    band_name: name of the band; empty without one.
    """

    label: str
    x: list[float]
    predictions: list[list[float]]
    band: tuple[list[float], list[float]] | None
    support_x: list[float]
    support_y: list[float]
    query_x: list[float]
    query_y: list[float]
    errors: tuple[float, float]
    band_name: str = ""


def own_fits(learner: Learner, fit: TableFit, *, steps: int, most: int) -> list[OwnFit]:
    """The first tasks of `fit`, at most `most`, on a grid over their points and the inputs of their predictions."""
    table = fit.table.tasks(0, min(most, len(fit.table.labels)))
    shown = fit.inputs.task < len(table.labels)
    inputs = torch.cat([table.x, fit.inputs.x[shown]])
    low, high = inputs.aminmax()
    x = torch.linspace(low.item(), high.item(), NUM_POINTS, dtype=torch.float64)
    sizes = torch.full((len(table.labels),), NUM_POINTS)
    outputs = fitted_to(learner, table, steps=steps).outputs(
        Arrays(x.repeat(len(table.labels)), sizes, lambda values: values, True)
    )
    predictions, band = outputs.predictions, outputs.band()
    by_task = predictions.reshape(*predictions.shape[:2], len(table.labels), NUM_POINTS)  # (S + 1, R, B, N)
    fits = []
    for task, label in enumerate(table.labels):
        of_task = by_task[:, :, task]
        ends = band and [end.reshape(-1, NUM_POINTS)[task].tolist() for end in (band.low, band.high)]
        support, query = ((table.task == task) & mask for mask in (~table.is_query, table.is_query))
        at = (fit.inputs.task == task) & fit.inputs.is_query
        fits.append(
            OwnFit(
                label,
                x.tolist(),
                of_task.mean(dim=1).tolist(),
                (ends[0], ends[1]) if ends else None,
                table.x[support].tolist(),
                table.y[support].tolist(),
                torch.cat([table.x[query], fit.inputs.x[at]]).tolist(),
                torch.cat([table.y[query], fit.inputs.y[at]]).tolist(),
                (fit.support_errors[0, task].item(), fit.support_errors[-1, task].item()),
                band.name if band else "",
            )
        )
    return fits
