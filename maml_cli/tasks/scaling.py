"""Affine maps between the user's units of x and y and those in which a network was trained."""

from typing import NamedTuple

from torch import Tensor


class Scaling(NamedTuple):
    """Maps to the units of a network: x * x_factor + x_shift, and y * y_factor + y_shift.

    x_factor, y_factor: network units in a unit of the user; not zero.
    x_shift, y_shift: the user's zero in network units.
    """

    x_factor: float = 1.0
    x_shift: float = 0.0
    y_factor: float = 1.0
    y_shift: float = 0.0

    def x_to_network(self, x: Tensor) -> Tensor:
        """Inputs in the units of the network."""
        return x * self.x_factor + self.x_shift

    def y_to_network(self, y: Tensor) -> Tensor:
        """Targets in the units of the network."""
        return y * self.y_factor + self.y_shift

    def y_to_user(self, y: Tensor) -> Tensor:
        """Predictions in the user's units."""
        return (y - self.y_shift) / self.y_factor

    def after(self, first: "Scaling") -> "Scaling":
        """The map of `first`, followed by this one.

        >>> Scaling(x_factor=2.0).after(Scaling(x_factor=3.0, x_shift=1.0))
        Scaling(x_factor=6.0, x_shift=2.0, y_factor=1.0, y_shift=0.0)
        """
        return Scaling(
            first.x_factor * self.x_factor,
            first.x_shift * self.x_factor + self.x_shift,
            first.y_factor * self.y_factor,
            first.y_shift * self.y_factor + self.y_shift,
        )


def affine_map(source: tuple[float, float], target: tuple[float, float]) -> tuple[float, float]:
    """Factor and shift that map the interval `source` onto `target`, or its midpoint where `source` has no width.

    >>> affine_map((0.0, 100.0), (-5.0, 5.0))
    (0.1, -5.0)
    """
    (low, high), (target_low, target_high) = source, target
    factor = (target_high - target_low) / (high - low) if high > low else 1.0
    return factor, (target_low + target_high) / 2 - factor * (low + high) / 2
