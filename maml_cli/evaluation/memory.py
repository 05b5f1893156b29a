"""Memory of evaluations: how many tasks adapt at a time, and whether the errors of all tasks fit."""

from typing import NamedTuple

from maml_cli.adaptation import chunks
from maml_cli.config import NUM_GRID
from maml_cli.core import NOISE, MetaParams, tensors
from maml_cli.evaluation.calibration import Calibration
from maml_cli.evaluation.statistics import Errors, PointErrors
from maml_cli.memory import require_memory

BYTES_PER_BLOCK = 2**28
"""Memory of the sampled points, of the baselines and of their statistics."""


def chunk_size(meta_params: MetaParams, num_shots: int) -> int:
    """The number of tasks that adapt at a time to K = `num_shots` points and predict them and the grid."""
    return chunks.tasks_at_a_time(meta_params, max(num_shots, NUM_GRID))


class Lower(NamedTuple):
    """The keys or options to lower for an evaluation of less memory, in words.

    errors: those that decide how many errors are stored.
    task: those that decide how much memory a single task needs.
    """

    errors: str
    task: str


def check_memory(
    meta_params: MetaParams, *, num_tasks: int, num_shots: int, steps: int, lower: Lower, num_kept: int = 0
) -> None:
    """Raises ConfigError if an evaluation would need more memory than is available.

    num_kept: evaluations whose error of each task and inner step is kept until all are done.
    """
    values = tensors(meta_params)
    num_errors = (steps + 1) * len(PointErrors._fields) * len(Errors._fields) * len(values[0]) * num_tasks
    if NOISE in meta_params.rule_params:
        num_errors += (steps + 1) * len(Calibration._fields) * len(values[0]) * num_tasks
    num_errors += num_kept * (steps + 1) * num_tasks
    errors = num_errors * values[0].element_size() + num_tasks * 64
    of_task = chunks.task_bytes(meta_params, max(num_shots, NUM_GRID))
    chunk = min(num_tasks, chunk_size(meta_params, num_shots)) * of_task
    if errors + chunk > BYTES_PER_BLOCK:
        purpose = f"evaluating {num_tasks:,} tasks, K = {num_shots:,}, after up to {steps:,} inner steps"
        keys = lower.errors if errors > chunk else lower.task
        require_memory(errors + chunk + BYTES_PER_BLOCK, purpose=purpose, lower=keys)
