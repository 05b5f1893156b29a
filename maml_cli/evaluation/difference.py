"""Two runs side by side: the keys of their configs that differ, and the paired difference of their errors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from maml_cli.config import changed_keys, to_dict
from maml_cli.errors import ConfigError
from maml_cli.evaluation.compare import Comparison, comparable_shots, compare_runs
from maml_cli.evaluation.held_out import Protocol
from maml_cli.evaluation.progress import OnTasks, ignore_tasks
from maml_cli.evaluation.trained_run import TrainedRun


class KeyDifference(NamedTuple):
    """A key of the config at which two runs differ.

    key: the dotted key.
    left, right: the plain values of the two runs.
    """

    key: str
    left: Any
    right: Any


class RunDifference(NamedTuple):
    """The difference of two runs.

    left, right: the names of their directories or files.
    keys: where their configs differ, in the order of the schema.
    comparisons: their errors on the same test tasks, one comparison for each K; none where `note` says why.
    note: why there is no difference of errors; empty where there is one.
    """

    left: str
    right: str
    keys: Sequence[KeyDifference]
    comparisons: Sequence[Comparison]
    note: str


def diff_runs(
    left: TrainedRun,
    right: TrainedRun,
    protocol: Protocol,
    *,
    any_family: bool = False,
    on_tasks: OnTasks = ignore_tasks,
) -> RunDifference:
    """The difference of two runs by `protocol`, as `compare_runs` compares them; runs of different families, or without
    a common K, have none of errors. Raises ConfigError for a protocol that does not fit both."""
    configs = [to_dict(run.checkpoint.config) for run in (left, right)]
    of_left, of_right = changed_keys(configs[0], configs[1]), changed_keys(configs[1], configs[0])
    keys = [KeyDifference(key, of_left[key], of_right[key]) for key in of_left]
    labels = left.checkpoint.label, right.checkpoint.label
    try:
        shots = comparable_shots([left, right], protocol, any_family=any_family)
    except ConfigError as error:
        return RunDifference(*labels, keys, [], error.lines[0])
    comparisons = compare_runs([left, right], protocol._replace(shots=shots), any_family=any_family, on_tasks=on_tasks)
    return RunDifference(*labels, keys, comparisons, "")
