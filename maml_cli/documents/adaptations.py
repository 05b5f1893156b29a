"""The document of a run adapted to points of the user's own, of `maml adapt`."""

from pydantic import Field

from maml_cli.documents.shape import Document, Number, Shape


class Scaling(Shape):
    """Maps from the user's units to those of the network, x * x_factor + x_shift and y likewise."""

    x_factor: Number = Field(description="network units of x in a unit of the user; 1 without --rescale")
    x_shift: Number = Field(description="the user's zero of x in network units; 0 without --rescale")
    y_factor: Number = Field(description="network units of y in a unit of the user; 1 without --rescale")
    y_shift: Number = Field(description="the user's zero of y in network units; 0 without --rescale")


class Prediction(Shape):
    """The predictions at one input."""

    task: str = Field(description="label of the task; empty without a column of tasks")
    x: Number = Field(description="the input, in the user's units")
    y: Number = Field(description="the target, in the user's units; null where it is not known")
    predictions: list[Number] = Field(
        description="prediction after 0, 1, ... inner steps, in the user's units; with several seeds their mean"
    )
    band: list[Number] = Field(
        [],
        description="lower and upper end of the 90 % band over seeds after the last inner step; absent for a single "
        "seed",
    )
    sd: Number = Field(
        None,
        description="standard deviation of a new target, with its noise, after the last inner step; absent for a run "
        "without predictive distribution",
    )


class AdaptDocument(Document):
    """A run adapted to points of your own: errors and predictions."""

    checkpoint: str = Field(description="path of the checkpoint file")
    step: int = Field(ge=0, description="outer steps that the checkpoint has taken")
    seeds: list[int] = Field(description="seeds of training whose learners adapt")
    trained_steps: int = Field(ge=0, description="inner steps of training")
    num_tasks: int = Field(ge=0, description="number of tasks in the table")
    num_support: int = Field(ge=0, description="number of support points of all tasks")
    num_query: int = Field(ge=0, description="number of query points of all tasks")
    scaling: Scaling = Field(description="the maps of --rescale")
    warnings: list[str] = Field(description="messages about columns that are not used and points out of range")
    support_mse: list[Number] = Field(
        description="mean over tasks of the mean squared error on the support points after 0, 1, ... inner steps, in "
        "squared units of y"
    )
    query_mse: list[Number] | None = Field(
        description="the same on the query points; null if there are no query points"
    )
    out: str | None = Field(description="path of the file of predictions, by --out; null without one")
    figure: str | None = Field(description="path of the figure, by --plot; null without one")
    predictions: list[Prediction] | None = Field(description="one for each input; null if they are in the file out")
