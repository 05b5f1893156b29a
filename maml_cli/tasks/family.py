"""Task families: distributions over functions, and the random streams that they are sampled from."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Generator

from maml_cli.core import TaskBatch

Range = tuple[float, float]


class SampledTasks(NamedTuple):
    """Tasks drawn from a family.

    batch: support and query points, with the family's noise on the targets.
    functions: the noise-free functions of the tasks, in the family's own type; called with x (R, B, K, 1), it gives y.
    """

    batch: TaskBatch
    functions: Any


class TaskFamily(Protocol):
    """A distribution over functions of one variable."""

    @property
    def x(self) -> Range:
        """The range of the inputs."""

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
        """Draw `num_tasks` tasks for each run, one generator a run; see SineFamily.sample."""


def make_generator(seed: int, purpose: str) -> Generator:
    """A CPU generator seeded by (seed, purpose), so that no two purposes share a stream of random numbers."""
    digest = hashlib.sha256(f"{purpose}/{seed}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
