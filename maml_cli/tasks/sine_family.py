"""The family of sinusoids (Finn et al. 2017, arXiv:1703.03400, section 5.1, and its variants)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from maml_cli.tasks import sinusoid_baselines
from maml_cli.tasks.family import Approximation, Baseline, Range
from maml_cli.tasks.sampler import FUNCTION_GRID, Sampler
from maml_cli.tasks.scaling import Scaling
from maml_cli.tasks.sinusoids import Sinusoids


class SineFamily(NamedTuple):
    """A distribution over sinusoids: every parameter of a task, and every input, is uniform on its range.

    amplitude, frequency, phase, offset: ranges (low, high) of the parameters.
    x: range of the inputs.
    noise: standard deviation of Gaussian noise on the targets.
    relative_noise: the same as a ratio to the amplitude of a task; one of the two is 0.
    test_x: range of the query points of test tasks, and of the evaluation grid; None for `x`.
    """

    amplitude: Range
    frequency: Range
    phase: Range
    offset: Range
    x: Range
    noise: float = 0.0
    relative_noise: float = 0.0
    test_x: Range | None = None

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "SineFamily":
        """The family with the fields of these names in `values`; other names are ignored."""
        return cls(**{name: values[name] for name in cls._fields})

    @property
    def test_range(self) -> Range:
        """The range of the query points of test tasks, and of the evaluation grid."""
        return self.test_x or self.x

    @property
    def y(self) -> Range:
        """The range of the noise-free targets."""
        largest = max(map(abs, self.amplitude))
        return self.offset[0] - largest, self.offset[1] + largest

    @property
    def scaling(self) -> Scaling:
        """None: networks take x and y as they are."""
        return Scaling()

    @property
    def grid_name(self) -> str:
        """The points `grid` of a test block."""
        return FUNCTION_GRID

    @property
    def kinds(self) -> list[str]:
        """None: the family is no mixture."""
        return []

    @property
    def sampler(self) -> Sampler:
        """The sampler of its tasks."""
        scale = Sinusoids.amplitudes if self.relative_noise else None
        return Sampler(4, self.functions, self.x, self.test_range, self.relative_noise or self.noise, scale)

    def functions(self, uniform: Tensor) -> Sinusoids:
        """The functions of tasks from uniform numbers (..., B, 4, 1, 1)."""
        ranges = (self.amplitude, self.frequency, self.phase, self.offset)
        return Sinusoids(*(uniform[..., i, :, :] * (high - low) + low for i, (low, high) in enumerate(ranges)))

    def baselines(self) -> Mapping[str, Baseline | Approximation | None]:
        """Predictors without meta-learning; see sinusoid_baselines.sine_baselines."""
        return sinusoid_baselines.sine_baselines(self)

    def best_nonadaptive_error(self, measure: str) -> float | None:
        """The least error (`mse` or `mae`) over the family and the range of x that is possible without adapting."""
        return sinusoid_baselines.best_nonadaptive_error(self, measure)
