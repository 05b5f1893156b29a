"""The family of the user's own curves: each task is a curve, and its points are support and query points.

Shapes: R runs, B tasks, K points. Points are (R, B, K, 1).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from maml_cli.core import Points, TaskBatch
from maml_cli.errors import DataError
from maml_cli.tasks import data_baselines
from maml_cli.tasks.curves import FEWEST, Curves, Source, measure_curves, read_curves, source_of
from maml_cli.tasks.family import Baseline, Range, SampledTasks, TestBlock
from maml_cli.tasks.sampler import BLOCK, MAX_BLOCK_POINTS
from maml_cli.tasks.scaling import Scaling


class DrawnCurves(NamedTuple):
    """The curves of a batch of test tasks, whose functions are not known.

    labels: of the tasks, B.
    """

    labels: Sequence[str]

    def columns(self) -> dict[str, list[Any]]:
        """The label of each task, for tables with a row a task."""
        return {"curve": [*self.labels]}


class DataFamily(NamedTuple):
    """Curves of the user's own, of which those for training, validation and test are different ones.

    source: their table, which is read when it is needed.
    digest: SHA-256 that the table must have; None for any.
    x, y: ranges of the inputs and targets of the training curves.
    scaling: their normalisation.
    """

    source: Source
    digest: str | None
    x: Range
    y: Range
    scaling: Scaling

    @classmethod
    def from_values(cls, tasks: Mapping[str, Any]) -> "DataFamily":
        """The family that the values of the section `tasks` describe; its table is measured if no training has."""
        measured, source = tasks["data"].measured, source_of(tasks)
        if measured is None:
            return cls(source, *measure_curves(source, tasks["data"].normalise))
        scaling = Scaling(measured.x_factor, measured.x_shift, measured.y_factor, measured.y_shift)
        return cls(source, measured.digest, measured.x, measured.y, scaling)

    @property
    def test_range(self) -> Range:
        """The range of the inputs."""
        return self.x

    @property
    def grid_name(self) -> str:
        """The points `grid` of a test block: all of a curve but the support points."""
        return "other points"

    @property
    def kinds(self) -> list[str]:
        """None: the family is no mixture."""
        return []

    @property
    def sampler(self) -> "CurveSampler":
        """The sampler of its tasks."""
        return CurveSampler(self.source, self.digest)

    def baselines(self) -> Mapping[str, Baseline | None]:
        """Predictors without meta-learning; see data_baselines.baselines."""
        return data_baselines.baselines(read_curves(self.source, self.digest))

    def best_nonadaptive_error(self, measure: str) -> float | None:
        """None: it is not known for curves without a formula."""
        return None


class CurveSampler(NamedTuple):
    """A sampler of curves, and of support and query points on each that do not overlap.

    source: the table.
    digest: SHA-256 that it must have; None for any.
    """

    source: Source
    digest: str | None

    @property
    def noise(self) -> float:
        """None is added to that of the curves."""
        return 0.0

    @property
    def num_parameters(self) -> int:
        """None: there are no functions to make a fixed set of."""
        return 0

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
        """Draw `num_tasks` training curves for each run, all equally likely, and points on each without replacement.

        Curves with fewer than `num_support` + `num_query` points are left out; raises DataError if none is left.
        """
        assert not stratified and bank is None, "refused by a constraint"
        curves, num_points = self.curves, num_support + num_query
        eligible = self.training_curves(num_points)
        shape = (num_steps or 1, num_tasks, 1 + 2 * num_points)
        uniform = torch.stack(
            [torch.rand(shape, generator=generator, dtype=torch.float64) for generator in generators], dim=1
        )
        tasks = eligible[(uniform[..., 0] * len(eligible)).long()]  # (steps, R, B)
        chosen = _without_replacement(curves.sizes[tasks], uniform[..., 1 : num_points + 1])
        order = uniform[..., num_points + 1 :].argsort(dim=-1)
        index = curves.starts[tasks].unsqueeze(-1) + chosen.gather(-1, order)
        index = (index if num_steps else index[0]).unsqueeze(-1)
        x, y = (values[index].to(dtype) for values in (curves.x, curves.y))
        support = Points(x[..., :num_support, :], y[..., :num_support, :])
        query = Points(x[..., num_support:, :], y[..., num_support:, :])
        return SampledTasks(TaskBatch(support, query), None)

    @property
    def curves(self) -> Curves:
        """All curves of the table."""
        return read_curves(self.source, self.digest)

    def training_curves(self, num_points: int) -> Tensor:
        """The training curves with `num_points` points or more; raises DataError if there are none."""
        curves = self.curves.indices("train", num_points=num_points)
        if not len(curves):
            raise DataError(self._too_short("train", num_points))
        return curves

    def num_test_tasks(self, purpose: str, num_tasks: int, num_shots: int) -> int:
        """The curves with more than `num_shots` points, at most `num_tasks`: each is one task."""
        available = len(self.curves.indices(purpose, num_points=num_shots + 1))
        if available < FEWEST:
            raise DataError(self._too_short(purpose, num_shots + 1))
        return min(num_tasks, available)

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
        """Each curve with random support points; all of its other points, in random order, are the grid, and the first
        K of these the query points. Curves come by the number of their points, so that a block needs no padding."""
        curves = self.curves
        tasks = curves.indices(purpose, num_points=num_shots + 1)[:num_tasks]
        tasks = tasks[curves.sizes[tasks].argsort(stable=True)]
        for same in torch.split(tasks, torch.unique_consecutive(curves.sizes[tasks], return_counts=True)[1].tolist()):
            size = int(curves.sizes[same[0]])
            for block in torch.split(same, min(BLOCK, max(1, MAX_BLOCK_POINTS // size))):
                shape = (len(block), size)
                keys = torch.stack([torch.rand(shape, generator=run, dtype=torch.float64) for run in generators])
                index = (curves.starts[block].unsqueeze(-1) + keys.argsort(dim=-1)).unsqueeze(-1)
                x, y = curves.x[index], curves.y[index]
                stops = {"support": (0, num_shots), "grid": (num_shots, size), "query": (num_shots, 2 * num_shots)}
                points = {name: Points(x[..., a:b, :], y[..., a:b, :]) for name, (a, b) in stops.items()}
                yield TestBlock(points, DrawnCurves([curves.labels[task] for task in block.tolist()]))

    def _too_short(self, purpose: str, num_points: int) -> str:
        curves = self.curves.indices(purpose)
        name = "training" if purpose == "train" else purpose
        longest = max(self.curves.sizes[curves].tolist(), default=0)
        has = f"of its {len(curves)} {name} curves, the longest has {longest:,}" if len(curves) else f"no {name} curve"
        need = "num_support + num_query" if purpose == "train" else "K + 1, in two curves or more"
        return f"{self.source.file}: {has}; {num_points:,} points are needed ({need}): lower K, or give longer curves"


def _without_replacement(sizes: Tensor, uniform: Tensor) -> Tensor:
    """Numbers from 0 to size - 1, all different, for each of `sizes` (...): (..., M) from uniform numbers (..., M).

    All subsets are equally likely, their order is not (Floyd's algorithm; Bentley and Floyd 1987).
    """
    num_points = uniform.shape[-1]
    chosen = torch.empty(uniform.shape, dtype=torch.int64)
    for index in range(num_points):
        last = sizes - num_points + index
        number = (uniform[..., index] * (last + 1)).long()
        is_taken = (chosen[..., :index] == number.unsqueeze(-1)).any(dim=-1)
        chosen[..., index] = torch.where(is_taken, last, number)
    return chosen
