"""Sampling of tasks: parameters, inputs and noise, from one stream of random numbers for each run.

Shapes: R runs, B tasks, K points, P parameters. Points are (R, B, K, 1), parameters of a task (R, B, 1, 1). The tasks
of several outer steps have an axis of steps in front.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from maml_cli.core import Points, TaskBatch
from maml_cli.tasks.family import Range, SampledTasks, TestBlock

FUNCTION_GRID = "100-point grid"
"""The heading of the errors on the grid of a function."""
BLOCK = 400
"""Tasks of a block; the last block has up to twice as many. torch.randn fills its values in groups of 16 and redraws
the last group of a call if that is not full: blocks are whole groups, so that they have the noise of a single call."""
NOISE_GROUP = 16
MAX_BLOCK_POINTS = 2**21
"""Points of a block; tasks of more points come in blocks of fewer tasks, of `NOISE_GROUP` at least."""


class Sampler(NamedTuple):
    """A sampler of tasks with P parameters each.

    num_parameters: P.
    functions: uniform numbers (..., B, P, 1, 1) -> the noise-free functions of B tasks; called with x, they give y.
    x: range of the inputs, which are uniform on it.
    test_x: range of the query points of `iter_blocks`.
    noise: standard deviation of Gaussian noise on the targets, 0 for none.
    noise_scale: functions -> a factor on the noise of each task, (..., B, 1, 1); None for 1.
    """

    num_parameters: int
    functions: Callable[[Tensor], Any]
    x: Range
    test_x: Range
    noise: float = 0.0
    noise_scale: Callable[[Any], Tensor] | None = None

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
        """Draw `num_tasks` tasks for each run, one generator a run; with `num_steps`, those of several outer steps.

        Everything is drawn in float64 on the CPU, so that `dtype` changes the arithmetic and not the tasks.
        The parameters are drawn before the points, so that K changes the points and not the functions. Several steps at
        once are the same tasks as one step after the other. With `stratified`, the range of x is cut into `num_query`
        equal strata and each stratum has one query point, uniform on it. With `bank`, uniform numbers (R, N, P), a task
        is one of the N tasks of its run, all equally likely.
        """
        num_points, num_parameters = num_support + num_query, self.num_parameters
        draws = [
            self._draw(generator, num_steps or 1, num_tasks * (num_parameters + num_points), num_tasks * num_points)
            for generator in generators
        ]
        uniform, normal = (torch.stack(runs, dim=1) for runs in zip(*draws, strict=True))
        parameters = uniform[..., : num_tasks * num_parameters].unflatten(-1, (num_tasks, num_parameters))  # type: ignore[no-untyped-call]
        if bank is not None:
            parameters = _from_bank(bank, parameters[..., 0])
        x = uniform[..., num_tasks * num_parameters :].reshape(*uniform.shape[:2], num_tasks, num_points, 1)
        if stratified:
            stratum = torch.arange(num_query, dtype=x.dtype).reshape(-1, 1)
            x = torch.cat([x[..., :num_support, :], (x[..., num_support:, :] + stratum) / num_query], dim=-2)
        if num_steps is None:
            parameters, x, normal = parameters[0], x[0], normal[0]
        batch, functions = self._tasks(parameters, _scale(x, self.x), normal, num_support=num_support)
        return SampledTasks(
            TaskBatch(*(Points(*(tensor.to(dtype) for tensor in points)) for points in batch)), functions
        )

    def num_test_tasks(self, purpose: str, num_tasks: int, num_shots: int) -> int:
        """As many as are asked for: there are always new ones."""
        return num_tasks

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
        """Test tasks with targets on `num_grid` equally spaced inputs and on K fresh random ones."""
        grid = torch.linspace(*self.test_x, num_grid, dtype=torch.float64).reshape(num_grid, 1)
        blocks = self.iter_blocks(generators, num_tasks=num_tasks, num_support=num_shots, num_query=num_shots)
        for batch, functions in blocks:
            grid_x = grid.expand(*batch.support.x.shape[:2], num_grid, 1)
            missing_noise = torch.zeros((), dtype=torch.float64)
            if for_noise:
                on_grid, on_query = Points(grid_x, self.noisy_targets(functions, grid_x, for_noise)), batch.query
            else:
                on_grid, on_query = (Points(x, functions(x)) for x in (grid_x, batch.query.x))
                missing_noise = self.add_noise(missing_noise, functions, torch.ones_like(missing_noise))
            yield TestBlock({"grid": on_grid, "query": on_query, "support": batch.support}, functions, missing_noise)

    def iter_blocks(
        self, generators: Sequence[Generator], *, num_tasks: int, num_support: int, num_query: int
    ) -> Iterator[SampledTasks]:
        """The tasks that `sample` would draw, in float64, with query points on `test_x`.

        They come `BLOCK` to 2 `BLOCK` - 1 at a time, or fewer if that is all or if they have many points.
        Parameters, inputs and noise are drawn by copies of each generator, which itself is left as it is.
        """
        num_points, num_parameters = num_support + num_query, self.num_parameters
        for_parameters = [_skip_uniform(generator, 0) for generator in generators]
        for_x = [_skip_uniform(generator, num_tasks * num_parameters) for generator in generators]
        for_noise = [_skip_uniform(generator, num_tasks * num_points) for generator in for_x] if self.noise else []
        block = min(BLOCK, max(1, MAX_BLOCK_POINTS // num_points // NOISE_GROUP) * NOISE_GROUP)
        for start in range(0, max(num_tasks - block, 0) + 1, block):
            count = block if num_tasks - start >= 2 * block else num_tasks - start
            parameters = torch.stack([_uniform(copy, count * num_parameters) for copy in for_parameters])
            x = torch.stack([_uniform(copy, count * num_points) for copy in for_x]).reshape(-1, count, num_points, 1)
            noise = torch.stack([_normal(copy, count * num_points) for copy in for_noise]) if self.noise else x
            x = torch.cat([_scale(x[..., :num_support, :], self.x), _scale(x[..., num_support:, :], self.test_x)], -2)
            yield self._tasks(parameters.reshape(-1, count, num_parameters), x, noise, num_support=num_support)

    def noisy_targets(self, functions: Any, x: Tensor, generators: Sequence[Generator]) -> Tensor:
        """The targets of `functions` at further inputs (R, B, K, 1) with noise from `generators`, one for each R."""
        y: Tensor = functions(x)
        normal = torch.stack([_normal(generator, *x.shape[1:]) for generator in generators])
        return self.add_noise(y, functions, normal)

    def add_noise(self, y: Tensor, functions: Any, normal: Tensor) -> Tensor:
        """The noise-free targets `y` of `functions` with noise, from normal numbers of the same shape."""
        scale = 1.0 if self.noise_scale is None else self.noise_scale(functions)
        return y + self.noise * scale * normal

    def _draw(self, generator: Generator, num_steps: int, uniform: int, normal: int) -> tuple[Tensor, Tensor]:
        """Random numbers of each step: `uniform` uniform values, and `normal` normal values if there is noise."""
        if not self.noise:
            return _uniform(generator, num_steps, uniform), torch.empty(num_steps, 0)
        pairs = [(_uniform(generator, 1, uniform), _normal(generator, 1, normal)) for _ in range(num_steps)]
        return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])

    def _tasks(self, parameters: Tensor, x: Tensor, normal: Tensor, *, num_support: int) -> SampledTasks:
        """Tasks from uniform parameters (..., B, P), inputs (..., B, K, 1) and normal numbers (..., B K)."""
        functions = self.functions(parameters[..., None, None])
        y = functions(x)
        if self.noise:
            y = self.add_noise(y, functions, normal.reshape(y.shape))
        batch = TaskBatch(
            support=Points(x[..., :num_support, :], y[..., :num_support, :]),
            query=Points(x[..., num_support:, :], y[..., num_support:, :]),
        )
        return SampledTasks(batch, functions)


def make_bank(generators: Sequence[Generator], *, num_tasks: int, num_parameters: int) -> Tensor:
    """Uniform numbers of the parameters of `num_tasks` tasks for each run, (R, num_tasks, num_parameters)."""
    return torch.stack([_uniform(generator, num_tasks, num_parameters) for generator in generators])


def _from_bank(bank: Tensor, uniform: Tensor) -> Tensor:
    """The tasks of a bank (R, N, P) that uniform numbers (steps, R, B) choose: (steps, R, B, P)."""
    index = (uniform * bank.shape[1]).long()
    runs = torch.arange(len(bank)).reshape(-1, 1)
    return bank[runs, index]


def _scale(uniform: Tensor, limits: Range) -> Tensor:
    low, high = limits
    return uniform * (high - low) + low


def _uniform(generator: Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def _normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _skip_uniform(generator: Generator, count: int) -> Generator:
    """A copy of `generator` that has drawn `count` uniform values more."""
    copy = Generator()
    copy.set_state(generator.get_state())
    buffer = torch.empty(min(count, 10_000), dtype=torch.float64)
    for start in range(0, count, 10_000):
        buffer[: count - start].uniform_(generator=copy)
    return copy
