"""Tasks: sinusoids drawn from a family, and the support and query points that a learner sees of them.

Shapes: R runs, B tasks, K points. Points x and y are (R, B, K, 1), a task's parameters (R, B, 1, 1); what an oracle
network sees as x is (R, B, K, 4). Batches of several outer steps have an axis of steps in front.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

Range = tuple[float, float]


class Split(NamedTuple):
    """Points of a batch of tasks: inputs `x` and targets `y`, each (R, B, K, 1)."""

    x: Tensor
    y: Tensor


class Sinusoids(NamedTuple):
    """A batch of noise-free functions `amplitude * sin(frequency * x - phase) + offset`, each (R, B, 1, 1)."""

    amplitude: Tensor
    frequency: Tensor
    phase: Tensor
    offset: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.amplitude * torch.sin(self.frequency * x - self.phase) + self.offset


class TaskBatch(NamedTuple):
    """What one outer step sees: support points to adapt on, query points to judge by, and the truth behind."""

    support: Split
    query: Split
    truth: Sinusoids

    def with_inputs(self, inputs: Callable[[Split, Sinusoids], Split]) -> "TaskBatch":
        """The same tasks as a network sees them of which `inputs` makes the inputs."""
        return self._replace(support=inputs(self.support, self.truth), query=inputs(self.query, self.truth))

    @classmethod
    def side_by_side(cls, batches: "Sequence[TaskBatch]") -> "TaskBatch":
        """Batches of several steps, (steps, R, B, ...), as one of all their runs."""
        support, query, truth = (
            [torch.cat(parts, dim=1) for parts in zip(*groups, strict=True)] for groups in zip(*batches, strict=True)
        )
        return cls(Split(*support), Split(*query), Sinusoids(*truth))

    def each(self) -> Iterator["TaskBatch"]:
        """What is at each place of the first axis, one after the other."""
        for at in zip(*(part.unbind() for group in self for part in group), strict=True):
            yield TaskBatch(Split(*at[:2]), Split(*at[2:4]), Sinusoids(*at[4:]))

    def at(self, place: int) -> "TaskBatch":
        """What is at one place of the first axis: one step of several."""
        support, query, truth = ([part[place] for part in group] for group in self)
        return TaskBatch(Split(*support), Split(*query), Sinusoids(*truth))


class SineFamily(NamedTuple):
    """A distribution over sinusoids: each parameter, and each input, uniform on its range.

    `noise` is the standard deviation of Gaussian noise on the targets.
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
    ) -> TaskBatch:
        """Draw `num_tasks` tasks for each run, one generator a run; or those of `num_steps` steps, (steps, R, B, ...).

        Drawn in float64 on the CPU whatever `dtype` and `device`, so that both change the arithmetic but not
        the tasks; and the functions before the points, so that K changes the points but not the functions. Several
        steps are the ones that would be drawn one by one. With `stratified`, the range of x is cut into `num_query`
        equal parts, with a query point somewhere in each.
        """
        points = num_support + num_query
        drawn = [self._draw(g, num_steps or 1, num_tasks * (4 + points), num_tasks * points) for g in generators]
        uniform, normal = (torch.stack(parts, dim=1) for parts in zip(*drawn, strict=True))
        functions, x = uniform[..., : num_tasks * 4], uniform[..., num_tasks * 4 :]
        truth = self._functions(functions.reshape(*uniform.shape[:2], num_tasks, 4, 1, 1))
        x = x.reshape(*uniform.shape[:2], num_tasks, points, 1)
        if stratified:
            part = torch.arange(num_query, dtype=x.dtype).reshape(-1, 1)
            x = torch.cat([x[..., :num_support, :], (x[..., num_support:, :] + part) / num_query], dim=-2)
        x = _scaled(x, self.x)
        y = truth(x)
        if self.noise:
            y = y + self.noise * normal.reshape(y.shape)
        x, y = x.to(device, dtype), y.to(device, dtype)
        batch = TaskBatch(
            support=Split(x[..., :num_support, :], y[..., :num_support, :]),
            query=Split(x[..., num_support:, :], y[..., num_support:, :]),
            truth=truth,
        )
        return batch.at(0) if num_steps is None else batch

    def _draw(self, stream: Generator, num_steps: int, uniform: int, normal: int) -> tuple[Tensor, Tensor]:
        """The random numbers of each step, (steps, count): uniform ones, and normal ones where there is noise."""
        if not self.noise:
            return _uniform(stream, num_steps, uniform), torch.empty(num_steps, 0)
        pairs = [(_uniform(stream, 1, uniform), _normal(stream, 1, normal)) for _ in range(num_steps)]
        return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])

    def _functions(self, uniform: Tensor) -> Sinusoids:
        ranges = (self.amplitude, self.frequency, self.phase, self.offset)
        return Sinusoids(*(_scaled(uniform[..., i, :, :], limits) for i, limits in enumerate(ranges)))


def revealed(split: Split, truth: Sinusoids) -> Split:
    """`split` with the task's amplitude, frequency and phase as three more inputs: x is (R, B, K, 4)."""
    told = (value.to(split.x).expand_as(split.x) for value in (truth.amplitude, truth.frequency, truth.phase))
    return split._replace(x=torch.cat([split.x, *told], dim=-1))


def generator(seed: int, purpose: str) -> Generator:
    """A CPU generator of its own for each (seed, purpose), so that no stream of numbers is used twice."""
    digest = hashlib.sha256(f"{purpose}/{seed}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def _scaled(uniform: Tensor, limits: Range) -> Tensor:
    low, high = limits
    return uniform * (high - low) + low


def _uniform(generator: Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def _normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
