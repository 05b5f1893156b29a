"""Constraints on numbers that the arithmetic of a run, float32 or float64, cannot tell apart or not represent."""

from typing import TYPE_CHECKING

from maml_cli.config.constraint import Constraint

if TYPE_CHECKING:
    from maml_cli.config.schema import Config

MAX_PHASE_ERROR = 0.01
"""Largest error of frequency * x, in radians, by rounding x."""
MIN_DISTINCT_INPUTS = 1000
"""Fewest different inputs on the range of x, after rounding."""


def _rounding(dtype: str) -> float:
    """The largest relative error of rounding to a value of `run.dtype`."""
    return 2.0**-53 if dtype == "float64" else 2.0**-24


def _largest(limits: tuple[float, float]) -> float:
    return max(map(abs, limits))


def _is_too_narrow(config: "Config") -> bool:
    low, high = config.tasks.x
    spacing = 2 * _rounding(config.run.dtype) * _largest(config.tasks.x)
    return high - low <= MIN_DISTINCT_INPUTS * spacing


def _phase_error(config: "Config") -> float:
    tasks = config.tasks
    return _largest(tasks.frequency) * _largest(tasks.x) * _rounding(config.run.dtype)


NUMERIC_CONSTRAINTS = [
    Constraint("tasks.x", [], lambda c: c.tasks.x[0] == c.tasks.x[1], "must be [low, high] with low below high"),
    Constraint(
        "tasks.x",
        ["run.dtype"],
        lambda c: c.tasks.x[0] < c.tasks.x[1] and _is_too_narrow(c),
        lambda c: f"must be wide enough for {MIN_DISTINCT_INPUTS:,} different inputs in {c.run.dtype}",
    ),
    Constraint(
        "tasks.frequency",
        ["tasks.x", "run.dtype"],
        lambda c: _phase_error(c) > MAX_PHASE_ERROR,
        lambda c: (
            f"must be at most {MAX_PHASE_ERROR / _rounding(c.run.dtype) / _largest(c.tasks.x):,.6g} in magnitude: "
            f"rounded to {c.run.dtype}, inputs as far out as those of tasks.x have phases with larger errors than "
            f"{MAX_PHASE_ERROR:g} radians"
        ),
    ),
    Constraint(
        "inner.alpha.init",
        ["run.dtype"],
        lambda c: c.run.dtype == "float32" and c.inner.alpha.init > 3e38,
        "must be at most 3e38, the range of float32",
    ),
    Constraint(
        "run.dtype",
        ["run.device"],
        lambda c: c.run.device == "mps" and c.run.dtype == "float64",
        "must be float32 on mps, which has no float64",
    ),
]
