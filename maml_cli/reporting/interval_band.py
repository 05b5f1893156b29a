"""The interval of a predictive distribution as a band in figures of fits."""

from typing import Any

from maml_cli.adaptation import INTERVAL, interval_95
from maml_cli.evaluation import TaskFit
from maml_cli.reporting.canvas import BLUE, Axes, drawable


def draw_interval(axis: Axes, fit: TaskFit, step: int) -> list[Any]:
    """Draw the interval of new targets after inner step `step`; the artists, none without predictive distribution."""
    if fit.std is None:
        return []
    low, high = _ends(fit.predictions[step], fit.std[step])
    return [axis.fill_between(fit.x.tolist(), low, high, color=BLUE, alpha=0.2, lw=0, label=INTERVAL)]


def move_interval(band: Any, fit: TaskFit, step: int, share: float) -> None:
    """Move a drawn `band` to the interval after inner step `step` and by `share` of the change to that of the next."""
    assert fit.std is not None
    following = min(step + 1, len(fit.std) - 1)
    at_step, at_next = ([values[each] for values in (fit.predictions, fit.std)] for each in (step, following))
    low, high = _ends(*(one + share * (other - one) for one, other in zip(at_step, at_next, strict=True)))
    x = fit.x.tolist()
    band.set_verts([[*zip(x, low, strict=True), *zip(reversed(x), reversed(high), strict=True)]])


def _ends(mean: Any, std: Any) -> tuple[list[float], list[float]]:
    low, high = interval_95(mean, std)
    return [*map(drawable, low.tolist())], [*map(drawable, high.tolist())]
