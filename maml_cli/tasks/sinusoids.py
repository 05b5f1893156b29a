"""Sinusoids y = amplitude * sin(frequency * x - phase) + offset, each parameter uniform on a range.

Shapes: R runs, B tasks, K points. Points are (R, B, K, 1), parameters of a task (R, B, 1, 1). The tasks of several
outer steps have an axis of steps in front.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from maml_cli.core import Points, TaskBatch
from maml_cli.tasks.family import Range, SampledTasks


class Sinusoids(NamedTuple):
    """Noise-free functions of a batch of tasks; every field is (R, B, 1, 1).

    amplitude: factor on the sine.
    frequency: angular frequency, in radians per unit of x.
    phase: in radians, subtracted.
    offset: added to every target.
    """

    amplitude: Tensor
    frequency: Tensor
    phase: Tensor
    offset: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.amplitude * torch.sin(self.frequency * x - self.phase) + self.offset


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
        equal parts and each part has one query point, uniform on it.
        """
        points = num_support + num_query
        drawn = [self._draw(g, num_steps or 1, num_tasks * (4 + points), num_tasks * points) for g in generators]
        uniform, normal = (torch.stack(runs, dim=1) for runs in zip(*drawn, strict=True))
        parameters, x = uniform[..., : num_tasks * 4], uniform[..., num_tasks * 4 :]
        functions = self._scale_parameters(parameters.reshape(*uniform.shape[:2], num_tasks, 4, 1, 1))
        x = x.reshape(*uniform.shape[:2], num_tasks, points, 1)
        if stratified:
            stratum = torch.arange(num_query, dtype=x.dtype).reshape(-1, 1)
            x = torch.cat([x[..., :num_support, :], (x[..., num_support:, :] + stratum) / num_query], dim=-2)
        x = _scale(x, self.x)
        y = functions(x)
        if self.noise:
            y = y + self.noise * normal.reshape(y.shape)
        x, y = x.to(device, dtype), y.to(device, dtype)
        batch = TaskBatch(
            support=Points(x[..., :num_support, :], y[..., :num_support, :]),
            query=Points(x[..., num_support:, :], y[..., num_support:, :]),
        )
        if num_steps is None:
            return SampledTasks(batch.step(0), Sinusoids(*(parameter[0] for parameter in functions)))
        return SampledTasks(batch, functions)

    def _draw(self, generator: Generator, num_steps: int, uniform: int, normal: int) -> tuple[Tensor, Tensor]:
        """Random numbers of each step: `uniform` uniform ones, and `normal` normal ones if there is noise."""
        if not self.noise:
            return _uniform(generator, num_steps, uniform), torch.empty(num_steps, 0)
        pairs = [(_uniform(generator, 1, uniform), _normal(generator, 1, normal)) for _ in range(num_steps)]
        return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])

    def _scale_parameters(self, uniform: Tensor) -> Sinusoids:
        ranges = (self.amplitude, self.frequency, self.phase, self.offset)
        return Sinusoids(*(_scale(uniform[..., i, :, :], limits) for i, limits in enumerate(ranges)))


def with_task_parameters(points: Points, functions: Sinusoids) -> Points:
    """`points` with amplitude, frequency and phase of their task as three more inputs: x is (R, B, K, 4)."""
    parameters = (functions.amplitude, functions.frequency, functions.phase)
    inputs = (value.to(points.x).expand_as(points.x) for value in parameters)
    return points._replace(x=torch.cat([points.x, *inputs], dim=-1))


def _scale(uniform: Tensor, limits: Range) -> Tensor:
    low, high = limits
    return uniform * (high - low) + low


def _uniform(generator: Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def _normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
