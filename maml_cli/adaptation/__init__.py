"""A learner adapted to points of the user's own, from arrays of any kind or from a table, and its predictions."""

from maml_cli.adaptation.fitted import Fitted, Learner, adapt_to_points
from maml_cli.adaptation.outputs import INTERVAL, NORMAL_QUANTILE_975, band_over_seeds, interval_95
from maml_cli.adaptation.own_fits import OwnFit, own_fits
from maml_cli.adaptation.table_fit import Grid, TableFit, TableSummary, equally_spaced, iter_fits, read_grid

__all__ = [
    "INTERVAL",
    "NORMAL_QUANTILE_975",
    "Fitted",
    "Grid",
    "Learner",
    "OwnFit",
    "TableFit",
    "TableSummary",
    "adapt_to_points",
    "band_over_seeds",
    "equally_spaced",
    "interval_95",
    "iter_fits",
    "own_fits",
    "read_grid",
]
