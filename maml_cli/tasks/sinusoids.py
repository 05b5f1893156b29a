"""Sinusoids y = amplitude * sin(frequency * x - phase) + offset, as the functions of tasks.

Shapes: R runs, B tasks, K points. Points are (R, B, K, 1), parameters of a task (R, B, 1, 1).
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from maml_cli.core import Points
from maml_cli.tasks.family import Range


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

    def columns(self) -> dict[str, list[float]]:
        """Amplitude, frequency, phase and offset of each task; see TaskFunctions."""
        return {name: value.flatten().tolist() for name, value in self._asdict().items()}

    def amplitudes(self) -> Tensor:
        """The magnitude of the amplitude of each task, (R, B, 1, 1)."""
        return self.amplitude.abs()


class SineRanges(Protocol):
    """The ranges, as (low, high), on which the parameters and the inputs of sinusoids are uniform."""

    @property
    def amplitude(self) -> Range:
        """Factor on the sine."""

    @property
    def frequency(self) -> Range:
        """Angular frequency, in radians per unit of x."""

    @property
    def phase(self) -> Range:
        """Phase in radians, subtracted."""

    @property
    def offset(self) -> Range:
        """Constant added to every target."""

    @property
    def x(self) -> Range:
        """Inputs."""

    @property
    def test_range(self) -> Range:
        """Inputs of the query points of test tasks."""


def with_task_parameters(points: Points, functions: Sinusoids) -> Points:
    """`points` with amplitude, frequency and phase of their task as three more inputs: x is (R, B, K, 4)."""
    parameters = (functions.amplitude, functions.frequency, functions.phase)
    inputs = (value.to(points.x).expand_as(points.x) for value in parameters)
    return points._replace(x=torch.cat([points.x, *inputs], dim=-1))
