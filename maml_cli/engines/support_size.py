"""The number of support points of an outer step, K, where `tasks.num_support` is a range.

K depends on the outer step alone, not on seeds or on the state: runs side by side and processes that share a training
have equal shapes, and a training that is resumed continues with the K of the one that was not interrupted.
"""

import torch

from maml_cli.core import Points, TaskBatch
from maml_cli.tasks import make_generator


def support_size(limits: tuple[int, int], step: int) -> int:
    """K of outer step `step`, from 0: uniform on the whole numbers from low to high, independent of other steps."""
    low, high = limits
    if low == high:
        return low
    return int(torch.randint(low, high + 1, (), generator=make_generator(step, "num-support")))


def first_support(batch: TaskBatch, count: int) -> TaskBatch:
    """`batch` (R, B, K, ...) with the first `count` of its K support points, and all of its query points.

    Points of a task are independent, so that any of them are as good as others.
    """
    if batch.support.x.shape[-2] == count:
        return batch
    return batch._replace(support=Points(*(tensor[..., :count, :].contiguous() for tensor in batch.support)))
