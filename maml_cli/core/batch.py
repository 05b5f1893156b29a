"""Batches of tasks: the support and query points that a learner sees.

Shapes: R runs, B tasks, K points, D inputs. `x` is (R, B, K, D) and `y` is (R, B, K, 1). The batches of several outer
steps are stacked along one more axis in front.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Points(NamedTuple):
    """Points of a batch of tasks.

    x: inputs, (R, B, K, D); D is 1, or 4 for an oracle network.
    y: targets, (R, B, K, 1).
    """

    x: Tensor
    y: Tensor


class TaskBatch(NamedTuple):
    """The tasks of one outer step.

    support: points to adapt on.
    query: points that the adapted parameters are judged on.
    """

    support: Points
    query: Points

    @classmethod
    def concat_runs(cls, batches: "Sequence[TaskBatch]") -> "TaskBatch":
        """One batch of all runs from batches of some runs each, all with an axis of steps: (steps, R, B, ...)."""
        support, query = (
            Points(*(torch.cat(tensors, dim=1) for tensors in zip(*points, strict=True)))
            for points in zip(*batches, strict=True)
        )
        return cls(support, query)

    def iter_steps(self) -> Iterator["TaskBatch"]:
        """The batch of each outer step, along the first axis."""
        for support_x, support_y, query_x, query_y in zip(
            *(tensor.unbind() for points in self for tensor in points), strict=True
        ):
            yield TaskBatch(Points(support_x, support_y), Points(query_x, query_y))

    def step(self, index: int) -> "TaskBatch":
        """The batch of one outer step, counted along the first axis."""
        return TaskBatch(*(Points(*(tensor[index] for tensor in points)) for points in self))
