"""Constraints on numbers that the arithmetic of a run, float32 or float64, cannot tell apart or not represent."""

from functools import partial
from typing import TYPE_CHECKING

from maml_cli.config.constraint import Constraint
from maml_cli.config.family_constraints import frequencies

if TYPE_CHECKING:
    from maml_cli.config.schema import Config

MAX_PHASE_ERROR = 0.01
"""Largest error of frequency * x, in radians, by rounding x; frequencies are the parameters whose names start so."""
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


def _max_frequency(config: "Config") -> float:
    """The largest frequency whose phases are accurate to MAX_PHASE_ERROR on the range of x."""
    return MAX_PHASE_ERROR / _rounding(config.run.dtype) / max(_largest(config.tasks.x), 1e-300)


def _has_inaccurate_phases(key: str, config: "Config") -> bool:
    """Whether a frequency that the config gives at `key` is above the largest."""
    return max(frequencies(key, config), default=0.0) > _max_frequency(config)


NUMERIC_CONSTRAINTS = [
    Constraint("tasks.x", [], lambda c: c.tasks.x[0] == c.tasks.x[1], "must be [low, high] with low below high"),
    Constraint(
        "tasks.x",
        ["run.dtype"],
        lambda c: c.tasks.x[0] < c.tasks.x[1] and _is_too_narrow(c),
        lambda c: f"must be wide enough for {MIN_DISTINCT_INPUTS:,} different inputs in {c.run.dtype}",
    ),
    *(
        Constraint(
            key,
            ["tasks.family", *depends_on, "tasks.x", "run.dtype"],
            partial(_has_inaccurate_phases, key),
            lambda c, words=words: (  # type: ignore[misc]
                f"must {words} at most {_max_frequency(c):,.6g} in magnitude: rounded to {c.run.dtype}, inputs as "
                f"far out as those of tasks.x have phases with larger errors than {MAX_PHASE_ERROR:g} radians"
            ),
        )
        for key, depends_on, words in [
            ("tasks.frequency", ["tasks.parameters"], "be"),
            ("tasks.parameters", [], "have frequencies of"),
            ("tasks.mixture", [], "have frequencies of"),
        ]
    ),
    Constraint(
        "inner.alpha.init",
        ["run.dtype"],
        lambda c: c.run.dtype == "float32" and c.inner.alpha.init_range[1] > 3e38,
        "must be at most 3e38, the range of float32",
    ),
    Constraint(
        "run.dtype",
        ["run.device"],
        lambda c: c.run.device == "mps" and c.run.dtype == "float64",
        "must be float32 on mps, which has no float64",
    ),
]
