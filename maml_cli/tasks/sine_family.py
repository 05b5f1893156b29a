"""The family of sinusoids (Finn et al. 2017, arXiv:1703.03400, section 5.1, and its variants): sampler and baselines.

Shapes: R runs, B tasks, K points. Points are (R, B, K, 1), parameters of a task (R, B, 1, 1). The tasks of several
outer steps have an axis of steps in front.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from maml_cli.core import Points, TaskBatch
from maml_cli.tasks import sinusoid_baselines
from maml_cli.tasks.family import Baseline, Omitted, Range, SampledTasks
from maml_cli.tasks.sinusoids import Sinusoids

BLOCK = 400
"""Tasks of a block; the last block has up to twice as many. torch.randn fills its values in groups of 16 and redraws
the last group of a call if that is not full: blocks are whole groups, so that they have the noise of a single call."""
NOISE_GROUP = 16
MAX_BLOCK_POINTS = 2**21
"""Points of a block; tasks of more points come in blocks of fewer tasks, of `NOISE_GROUP` at least."""


class SineFamily(NamedTuple):
    """A distribution over sinusoids: every parameter of a task, and every input, is uniform on its range.

    amplitude, frequency, phase, offset: ranges (low, high) of the parameters.
    x: range of the inputs.
    noise: standard deviation of Gaussian noise on the targets.
    """

    amplitude: Range
    frequency: Range
    phase: Range
    offset: Range
    x: Range
    noise: float = 0.0

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "SineFamily":
        """The family with the fields of these names in `values`; other names are ignored."""
        return cls(**{name: values[name] for name in cls._fields})

    @property
    def y(self) -> Range:
        """The range of the noise-free targets."""
        largest = max(map(abs, self.amplitude))
        return self.offset[0] - largest, self.offset[1] + largest

    def sample(
        self,
        generators: Sequence[Generator],
        *,
        num_tasks: int,
        num_support: int,
        num_query: int,
        num_steps: int | None = None,
        stratified: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> SampledTasks:
        """Draw `num_tasks` tasks for each run, one generator a run; with `num_steps`, those of several outer steps.

        Everything is drawn in float64 on the CPU, so that `dtype` and `device` change the arithmetic and not the tasks.
        The functions are drawn before the points, so that K changes the points and not the functions. Several steps at
        once are the same tasks as one step after the other. With `stratified`, the range of x is cut into `num_query`
        equal strata and each stratum has one query point, uniform on it.
        """
        num_points = num_support + num_query
        draws = [
            self._draw(generator, num_steps or 1, num_tasks * (4 + num_points), num_tasks * num_points)
            for generator in generators
        ]
        uniform, normal = (torch.stack(runs, dim=1) for runs in zip(*draws, strict=True))
        parameters = uniform[..., : num_tasks * 4].reshape(*uniform.shape[:2], num_tasks, 4, 1, 1)
        x = uniform[..., num_tasks * 4 :].reshape(*uniform.shape[:2], num_tasks, num_points, 1)
        if stratified:
            stratum = torch.arange(num_query, dtype=x.dtype).reshape(-1, 1)
            x = torch.cat([x[..., :num_support, :], (x[..., num_support:, :] + stratum) / num_query], dim=-2)
        batch, functions = self._tasks(parameters, x, normal, num_support=num_support)
        batch = TaskBatch(*(Points(*(tensor.to(device, dtype) for tensor in points)) for points in batch))
        if num_steps is None:
            return SampledTasks(batch.step(0), Sinusoids(*(parameter[0] for parameter in functions)))
        return SampledTasks(batch, functions)

    def iter_blocks(
        self, generators: Sequence[Generator], *, num_tasks: int, num_support: int, num_query: int
    ) -> Iterator[SampledTasks]:
        """The tasks that `sample` would draw, in float64, `BLOCK` to 2 `BLOCK` - 1 at a time, or fewer if that is all
        or if they have many points.

        Parameters, inputs and noise are drawn by copies of each generator, which itself is left as it is.
        """
        num_points = num_support + num_query
        for_parameters = [_skip_uniform(generator, 0) for generator in generators]
        for_x = [_skip_uniform(generator, num_tasks * 4) for generator in generators]
        for_noise = [_skip_uniform(generator, num_tasks * num_points) for generator in for_x] if self.noise else []
        block = min(BLOCK, max(1, MAX_BLOCK_POINTS // num_points // NOISE_GROUP) * NOISE_GROUP)
        for start in range(0, max(num_tasks - block, 0) + 1, block):
            count = block if num_tasks - start >= 2 * block else num_tasks - start
            parameters = torch.stack([_uniform(copy, count * 4) for copy in for_parameters])
            x = torch.stack([_uniform(copy, count * num_points) for copy in for_x])
            noise = torch.stack([_normal(copy, count * num_points) for copy in for_noise]) if self.noise else x
            yield self._tasks(
                parameters.reshape(-1, count, 4, 1, 1),
                x.reshape(-1, count, num_points, 1),
                noise,
                num_support=num_support,
            )

    def baselines(self) -> Mapping[str, Baseline | Omitted | None]:
        """Predictors without meta-learning; see sinusoid_baselines.sine_baselines."""
        return sinusoid_baselines.sine_baselines(self)

    def best_nonadaptive_error(self, measure: str) -> float | None:
        """The least error (`mse` or `mae`) over the family and the range of x that is possible without adapting."""
        return sinusoid_baselines.best_nonadaptive_error(self, measure)

    def _draw(self, generator: Generator, num_steps: int, uniform: int, normal: int) -> tuple[Tensor, Tensor]:
        """Random numbers of each step: `uniform` uniform values, and `normal` normal values if there is noise."""
        if not self.noise:
            return _uniform(generator, num_steps, uniform), torch.empty(num_steps, 0)
        pairs = [(_uniform(generator, 1, uniform), _normal(generator, 1, normal)) for _ in range(num_steps)]
        return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])

    def _tasks(self, parameters: Tensor, x: Tensor, normal: Tensor, *, num_support: int) -> SampledTasks:
        """Tasks from uniform parameters (..., B, 4, 1, 1), uniform inputs (..., B, K, 1) and normal (..., BK)."""
        ranges = (self.amplitude, self.frequency, self.phase, self.offset)
        functions = Sinusoids(*(_scale(parameters[..., i, :, :], limits) for i, limits in enumerate(ranges)))
        x = _scale(x, self.x)
        y = functions(x)
        if self.noise:
            y = y + self.noise * normal.reshape(y.shape)
        batch = TaskBatch(
            support=Points(x[..., :num_support, :], y[..., :num_support, :]),
            query=Points(x[..., num_support:, :], y[..., num_support:, :]),
        )
        return SampledTasks(batch, functions)


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
