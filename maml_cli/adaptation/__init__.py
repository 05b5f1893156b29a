"""A learner adapted to points of the user's own, from arrays of any kind or from a table, and its predictions."""

from maml_cli.adaptation.fitted import Fitted, Learner, adapt_to_points, band_over_seeds
from maml_cli.adaptation.own_fits import OwnFit, own_fits
from maml_cli.adaptation.scaling import Scaling, affine_map
from maml_cli.adaptation.table import Columns, TableReader, read_table
from maml_cli.adaptation.table_fit import Grid, TableFit, TableSummary, equally_spaced, iter_fits, read_grid

__all__ = [
    "Columns",
    "Fitted",
    "Grid",
    "Learner",
    "OwnFit",
    "Scaling",
    "TableFit",
    "TableReader",
    "TableSummary",
    "adapt_to_points",
    "affine_map",
    "band_over_seeds",
    "equally_spaced",
    "iter_fits",
    "own_fits",
    "read_grid",
    "read_table",
]
