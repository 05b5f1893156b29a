"""Differences between the configs of runs: the one number in which they differ, if it is one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from maml_cli.config import to_dict
from maml_cli.evaluation.trained_run import TrainedRun

IGNORED = ("run", "name")
"""Sections and keys of a config that do not change the learner, but for the seed."""


class NumericDifference(NamedTuple):
    """The only key of the config in which runs differ, a number.

    key: dotted, such as `inner.steps`.
    values: of each run, all different.
    """

    key: str
    values: tuple[float, ...]

    @property
    def ranks(self) -> list[float]:
        """The position of each value in their order, from 0 for the least to 1 for the greatest."""
        ordered = sorted(self.values)
        return [ordered.index(value) / (len(ordered) - 1) for value in self.values]


def numeric_difference(runs: Sequence[TrainedRun]) -> NumericDifference | None:
    """The key in which the training configs of `runs` differ; None if there is none, if there are several, and if its
    values are no numbers or not all different."""
    configs = [
        {key: value for key, value in _flat(to_dict(run.checkpoint.config)) if key.split(".")[0] not in IGNORED}
        for run in runs
    ]
    keys = dict.fromkeys(key for config in configs for key in config)
    differing = [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)]
    if len(differing) != 1:
        return None
    values = tuple(config.get(differing[0]) for config in configs)
    if len({*values}) < len(values) or not all(type(value) in (int, float) for value in values):
        return None
    return NumericDifference(differing[0], tuple(float(value) for value in values if value is not None))


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The dotted keys of nested dictionaries with their values; lists as text."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            pairs += _flat(value, f"{name}.")
        else:
            pairs.append((name, str(value) if isinstance(value, list) else value))
    return pairs
