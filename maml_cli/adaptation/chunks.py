"""The number of tasks that adapt at a time: memory is bounded, and activations fit into the processor's cache."""

from torch import Tensor

from maml_cli.core import NOISE, MetaParams, tensors

CHUNK = 100
"""Tasks adapted at a time. Results depend on it: the untrained networks of the baseline `random_init` are drawn by the
chunk."""
MAX_CHUNK_BYTES = 2**29
"""Largest working memory of a chunk; of larger tasks, fewer are adapted at a time, down to one."""
PARAM_COPIES = 6
"""Values of a task for each parameter: before and after an inner step, gradient, update, and state of the rule."""
HIDDEN_COPIES = 5
"""Values of a task for each hidden unit and point, in the passes of an inner step."""


def tasks_at_a_time(meta_params: MetaParams, num_points: int) -> int:
    """The number of tasks that adapt at a time: `CHUNK`, or fewer where that many need more than MAX_CHUNK_BYTES."""
    return int(max(1, min(CHUNK, MAX_CHUNK_BYTES // task_bytes(meta_params, num_points))))


def task_bytes(meta_params: MetaParams, num_points: int) -> int:
    """Estimated bytes in which all runs adapt to a task, and predict, with at most `num_points` points at once."""
    values = tensors(meta_params)
    num_params = sum(value.numel() for value in values)  # of all runs
    if NOISE in meta_params.rule_params:  # the posterior of the head
        runs, size, _ = meta_params.params["head.w"].shape
        num_params += runs * (size + 1) ** 2
    num_units = sum(bias.numel() for bias in _biases(meta_params))
    return (PARAM_COPIES * num_params + HIDDEN_COPIES * num_points * num_units) * values[0].element_size()


def _biases(meta_params: MetaParams) -> list[Tensor]:
    return [value for key, value in meta_params.params.items() if key.endswith(".b")]
