"""Task families: distributions over functions, and the random streams that they are sampled from."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from maml_cli.core import Points, TaskBatch
from maml_cli.tasks.scaling import Scaling

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


class TestBlock(NamedTuple):
    """Some test tasks, in float64.

    points: by name, each (R, B, K, 1): `support`, the points to adapt on; `grid`, points over the whole range of x, and
        `query`, up to K further points, on which predictions are judged.
    functions: of the tasks, in the family's own type.
    missing_noise: standard deviation of the noise of the tasks that the targets on grid and query points do not have,
        broadcast to (R, B, 1, 1); 0 if they have it, or there is none.
    """

    points: dict[str, Points]
    functions: Any
    missing_noise: Tensor = torch.zeros(())


class TaskSampler(Protocol):
    """A sampler of training tasks, by random numbers from one generator for each of R runs, and of test tasks."""

    @property
    def noise(self) -> float:
        """Standard deviation of the noise on the targets, or its ratio to their amplitude; 0 for none."""

    @property
    def num_parameters(self) -> int:
        """P, the uniform numbers that determine a task of a fixed set."""

    def sample(
        self,
        generators: Sequence[Generator],
        *,
        num_tasks: int,
        num_support: int,
        num_query: int,
        num_steps: int | None = None,
        stratified: bool = False,
        bank: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> SampledTasks:
        """`num_tasks` training tasks for each run; with `num_steps`, those of several outer steps."""

    def num_test_tasks(self, purpose: str, num_tasks: int, num_shots: int) -> int:
        """The test tasks with `num_shots` support points that there are, at most `num_tasks`; raises DataError for
        fewer than two. `purpose` is `test` or `validation`."""

    def iter_test_blocks(
        self,
        generators: Sequence[Generator],
        *,
        purpose: str,
        num_tasks: int,
        num_shots: int,
        num_grid: int,
        for_noise: Sequence[Generator] = (),
    ) -> Iterator[TestBlock]:
        """`num_tasks` test tasks in order, a block of a few hundred at a time, with `num_shots` support points each.
        The grid of a function has `num_grid` points. Targets on grid and query points are noise-free, or with noise
        where `for_noise` has generators for that on the grid."""


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
    def sampler(self) -> TaskSampler:
        """The sampler of its tasks."""

    @property
    def scaling(self) -> Scaling:
        """The map from the family's units to those of the network; predictions are mapped back."""

    @property
    def grid_name(self) -> str:
        """The points `grid` of a test block in words, for the heading of a table."""

    def baselines(self) -> Mapping[str, Baseline | Approximation | None]:
        """Predictors without meta-learning, by name; None for a baseline that this family's ranges make pointless or
        that is not known, Approximation for one that they make too expensive to compute exactly."""

    def best_nonadaptive_error(self, measure: str) -> float | None:
        """The least error (`mse` or `mae`) over the family that is possible without adapting; None if unknown."""


def make_generator(seed: int, purpose: str) -> Generator:
    """A CPU generator seeded by (seed, purpose), so that no two purposes share a stream of random numbers."""
    digest = hashlib.sha256(f"{purpose}/{seed}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
