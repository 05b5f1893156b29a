"""The section `tasks.data` of the schema: curves of the user's own, their columns, split and normalisation."""

from typing import Annotated, Literal

from pydantic import Field

from maml_cli.config.field_types import Takes, TargetRange
from maml_cli.config.section import Section

ColumnName = Annotated[str, Field(min_length=1, max_length=200), Takes("name of a column")]


class Measured(Section):
    """The values that a training measures in its table, and keeps, so that its learner computes without the table.

    digest: SHA-256 of the table, in hexadecimal; null for a table that may change.
    x, y: ranges of the inputs and targets of the training curves.
    x_factor, x_shift, y_factor, y_shift: the normalisation, x * x_factor + x_shift and y * y_factor + y_shift.
    """

    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    x: TargetRange
    y: TargetRange
    x_factor: float = Field(gt=0)
    x_shift: float
    y_factor: float = Field(gt=0)
    y_shift: float


class Data(Section):
    """Curves of the user's own: how the table in `tasks.file` is read, split and normalised."""

    task_column: ColumnName = Field("task", description="column with the label of the curve that a row belongs to")
    x_column: ColumnName = Field("x", description="column of inputs")
    y_column: ColumnName = Field("y", description="column of targets")
    validation: float = Field(
        0.15, ge=0, le=1, description="share of the curves for validation, where no column `split` assigns them"
    )
    test: float = Field(0.15, ge=0, le=1, description="share of the curves for the test; the rest is for training")
    split_seed: int = Field(0, ge=0, lt=2**63, description="seed of the split")
    normalise: Literal["standard", "range", "none"] = Field(
        "standard",
        description="map of x and y for the network, by the training curves and undone in every result: onto mean 0 "
        "and standard deviation 1 (standard), onto [-1, 1] (range), or none",
    )
    measured: Annotated[Measured | None, Takes("null: a training measures it")] = Field(
        None, description="digest, ranges and normalisation of the table, which a training keeps here"
    )
