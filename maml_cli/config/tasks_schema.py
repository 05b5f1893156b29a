"""The section `tasks` of the schema: families of functions, their parameters, points and noise."""

import math
from typing import Annotated, Literal

from pydantic import Field

from maml_cli.config.data_schema import Data
from maml_cli.config.field_types import (
    MAX_TARGET,
    AngleRange,
    FamilyName,
    FilePath,
    InputRange,
    Parameters,
    SupportSize,
    Takes,
    TargetRange,
)
from maml_cli.config.section import Section


class Component(Section):
    """A component of a mixture of families."""

    family: FamilyName = Field("sine", description="family of functions")
    weight: float = Field(1.0, gt=0, le=1e6, description="share of the tasks, relative to the other components")
    parameters: Parameters = Field({}, description="distributions of its parameters")


Components = Annotated[
    list[Component],
    Field(min_length=2, max_length=32),
    Takes("list of sections {family: ..., weight: 1, parameters: {...}}"),
]


class Tasks(Section):
    """The distribution of tasks, y = amplitude * sin(frequency * x - phase) + offset + noise, and their points."""

    family: FamilyName = Field("sine", description="family of functions; amplitude to offset are of sine alone")
    parameters: Parameters | None = Field(
        None, description="distributions of the parameters of the family; those that are not named are its own"
    )
    mixture: Components | None = Field(None, description="components of the family mixture, several")
    amplitude: TargetRange = Field((0.1, 5.0), description="amplitude: uniform on [low, high], or fixed by a number")
    frequency: AngleRange = Field((1.0, 1.0), description="angular frequency, in radians per unit of x")
    phase: AngleRange = Field((0.0, math.pi), description="phase in radians, subtracted: sin(frequency * x - phase)")
    offset: TargetRange = Field((0.0, 0.0), description="vertical offset, added to every target of a task")
    file: FilePath | None = Field(
        None,
        description="table of curves for the family data: a row for each point; from the current directory, else from "
        "that of the config",
    )
    data: Data = Field(Data(), description="columns, split and normalisation of the table")
    x: InputRange = Field((-5.0, 5.0), description="range of the inputs, which are uniform on it, and of the test grid")
    test_x: InputRange | None = Field(
        None, description="range of the test grid and of fresh points in evaluations; null: that of x"
    )
    noise: float = Field(0.0, ge=0, le=MAX_TARGET, description="standard deviation of Gaussian noise on the targets")
    relative_noise: float = Field(
        0.0, ge=0, le=1e6, description="the same as a ratio to the amplitude of a task, in place of noise"
    )
    count: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="size of a fixed set of training tasks of each seed; null: always new ones",
    )
    num_support: SupportSize = Field(
        10,
        description="K, the support points that a task adapts on; of a range, one number for all tasks of an outer "
        "step, uniform on its whole numbers",
    )
    num_query: int = Field(10, ge=1, le=100_000, description="query points of a task in training, for the outer loss")
    query_sampling: Literal["uniform", "stratified"] = Field(
        "uniform",
        description="uniform: query points are independent; stratified: one in each of num_query equal intervals of x",
    )

    @property
    def support_range(self) -> tuple[int, int]:
        """The smallest and the largest K of an outer step."""
        low, high = (self.num_support,) * 2 if isinstance(self.num_support, int) else self.num_support
        return low, high

    @property
    def max_support(self) -> int:
        """The largest K of an outer step."""
        return self.support_range[1]

    @property
    def trained_shots(self) -> tuple[int, ...]:
        """Each K of an evaluation by default: that of training, or the smallest and the largest of a range."""
        return tuple(dict.fromkeys(self.support_range))

    @property
    def support_in_words(self) -> str:
        """`10`, or `3 to 20` for a range."""
        return " to ".join(map(str, self.trained_shots))
