"""Derivatives by central differences, each with an estimate of its own error.

The width is the difficulty: wide differences have truncation error, and step over kinks and jumps nearby; narrow ones
have rounding error. Which width is best depends on the function, over five orders of magnitude, so many are tried and
the one with the smallest estimated error is taken.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

WIDTHS = tuple(2.0**-exponent for exponent in range(3, 29))
"""Widths h, from wide to narrow, each half of the one before: from 0.1 to 4e-9."""


class Derivative(NamedTuple):
    """A derivative by finite differences.

    value: the difference quotient.
    error: the estimate of its absolute error.
    """

    value: float
    error: float


def derivative(function: Callable[[float], float]) -> Derivative:
    """The derivative of `function` at 0: the five-point difference quotient of the width that is estimated best.

    D(h) = (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h has a truncation error of order h^4. The error of D(h) is
    estimated as its larger distance from D(2h) and D(h / 2), for truncation, kinks and jumps, and 18 roundings of
    |f| / 12h, for the rounding of f. A distance alone could be small by accident, where both quotients are noise.

    >>> round(derivative(lambda t: 3 * t + t**3).value, 9)
    3.0
    """
    ends = {width: (function(width), function(-width)) for width in WIDTHS}
    differences = {width: above - below for width, (above, below) in ends.items()}
    quotients = {h: (8 * differences[h] - differences[2 * h]) / (12 * h) for h in WIDTHS[1:]}
    size = max(abs(value) for value in ends[WIDTHS[-1]])
    estimates = []
    for h in WIDTHS[2:-1]:
        distance = max(abs(quotients[h] - quotients[2 * h]), abs(quotients[h] - quotients[h / 2]))
        estimates.append(Derivative(quotients[h], distance + 18 * sys.float_info.epsilon * size / (12 * h)))
    return min(estimates, key=lambda estimate: estimate.error)
