"""Memory of evaluations: how many tasks adapt at a time, and whether the errors of all tasks fit."""

from typing import NamedTuple

from torch import Tensor

from maml_cli.core import MetaParams, tensors
from maml_cli.evaluation import held_out
from maml_cli.evaluation.statistics import Errors, PointErrors
from maml_cli.memory import require_memory

PARAM_COPIES = 6
"""Values of a task for each parameter: before and after an inner step, gradient, update, and state of the rule."""
HIDDEN_COPIES = 5
"""Values of a task for each hidden unit and point, in the passes of an inner step."""
BYTES_PER_BLOCK = 2**28
"""Memory of the sampled points, of the baselines and of their statistics."""


def tasks_at_a_time(meta_params: MetaParams, num_shots: int) -> int:
    """The number of tasks that adapt at a time: `CHUNK`, or fewer where that many need more than MAX_CHUNK_BYTES."""
    return int(max(1, min(held_out.CHUNK, held_out.MAX_CHUNK_BYTES // task_bytes(meta_params, num_shots))))


def task_bytes(meta_params: MetaParams, num_shots: int) -> int:
    """Estimated bytes in which all runs adapt to a task of K = `num_shots` and predict its points."""
    values = tensors(meta_params)
    num_params = sum(value.numel() for value in values)  # of all runs
    num_units = sum(bias.numel() for bias in _biases(meta_params))
    points = max(num_shots, held_out.NUM_GRID)
    return (PARAM_COPIES * num_params + HIDDEN_COPIES * points * num_units) * values[0].element_size()


class Lower(NamedTuple):
    """The keys or options to lower for an evaluation of less memory, in words.

    errors: those that decide how many errors are stored.
    task: those that decide how much memory a single task needs.
    """

    errors: str
    task: str


def check_memory(meta_params: MetaParams, *, num_tasks: int, num_shots: int, steps: int, lower: Lower) -> None:
    """Raises ConfigError if an evaluation would need more memory than is available."""
    values = tensors(meta_params)
    num_errors = (steps + 1) * len(PointErrors._fields) * len(Errors._fields) * len(values[0]) * num_tasks
    errors = num_errors * values[0].element_size() + num_tasks * 64
    chunk = min(num_tasks, tasks_at_a_time(meta_params, num_shots)) * task_bytes(meta_params, num_shots)
    if errors + chunk > BYTES_PER_BLOCK:
        purpose = f"evaluating {num_tasks:,} tasks, K = {num_shots:,}, after up to {steps:,} inner steps"
        keys = lower.errors if errors > chunk else lower.task
        require_memory(errors + chunk + BYTES_PER_BLOCK, purpose=purpose, lower=keys)


def _biases(meta_params: MetaParams) -> list[Tensor]:
    return [value for key, value in meta_params.params.items() if key.endswith(".b")]
