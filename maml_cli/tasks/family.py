"""Task families: distributions over functions, and the random streams that they are sampled from."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Generator, Tensor

from maml_cli.core import Points, TaskBatch

if TYPE_CHECKING:
    from maml_cli.tasks.sampler import Sampler

Range = tuple[float, float]
"""An interval (low, high); its ends may be equal."""

Predictor = Callable[[Tensor], Tensor]
"""Inputs (R, B, K, 1) -> predictions of the same shape, in float64."""


class BaselinePredictors(NamedTuple):
    """Predictions of a baseline for the tasks of a batch.

    for_mse: the predictor that is judged by its mean squared error.
    for_mae: the predictor that is judged by its mean absolute error; mostly the same.
    """

    for_mse: Predictor
    for_mae: Predictor


Baseline = Callable[[Points, Any], BaselinePredictors]
"""(support points, noise-free functions) of a batch of tasks -> predictors for these tasks.

A baseline that uses the functions is an oracle."""


class Approximation(NamedTuple):
    """A baseline that may be worse than its name says, because the exact one would be too expensive.

    baseline: its predictors.
    note: the difference, as a phrase for the user.
    """

    baseline: Baseline
    note: str


KIND = "kind"
"""The column of the labels of a mixture's components in the description of tasks."""


class TaskFunctions(Protocol):
    """Noise-free functions of a batch of tasks, (R, B): each family has its own type."""

    def __call__(self, x: Tensor) -> Tensor:
        """Inputs (R, B, K, 1) -> noise-free targets of the same shape."""

    def columns(self) -> dict[str, list[Any]]:
        """The description of each task for tables: name of a column -> R B numbers or labels, the tasks of the first
        run first; None where a column does not apply to a task.

        Such as the parameters of the functions, or the label of a curve. A mixture has the column KIND.
        """


class SampledTasks(NamedTuple):
    """Tasks drawn from a family.

    batch: support and query points, with the family's noise on the targets.
    functions: the noise-free functions of the tasks, TaskFunctions in the family's own type.
    """

    batch: TaskBatch
    functions: Any


class TaskFamily(Protocol):
    """A distribution over functions of one variable. Families are equal if their distributions are."""

    @property
    def x(self) -> Range:
        """The range of the inputs."""

    @property
    def test_range(self) -> Range:
        """The range of the query points of test tasks, and of the evaluation grid."""

    @property
    def y(self) -> Range:
        """The range of the noise-free targets."""

    @property
    def kinds(self) -> Sequence[str]:
        """The labels of the components of a mixture, all different, as in the column KIND of its functions; none for
        other families."""

    @property
    def sampler(self) -> "Sampler":
        """The sampler of its tasks."""

    def baselines(self) -> Mapping[str, Baseline | Approximation | None]:
        """Predictors without meta-learning, by name; None for a baseline that this family's ranges make pointless or
        that is not known, Approximation for one that they make too expensive to compute exactly."""

    def best_nonadaptive_error(self, measure: str) -> float | None:
        """The least error (`mse` or `mae`) over the family that is possible without adapting; None if unknown."""


def make_generator(seed: int, purpose: str) -> Generator:
    """A CPU generator seeded by (seed, purpose), so that no two purposes share a stream of random numbers."""
    digest = hashlib.sha256(f"{purpose}/{seed}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
