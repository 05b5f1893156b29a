"""Blocks of tasks: the mean meta-gradient of an outer step as a sum over blocks, added in their order.

The blocks depend on the config alone, so that the sum has the same bytes whichever process computes each of them.
"""

from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core import MetaGradient, MetaParams, Points, TaskBatch, flatten, num_tasks, tensors, unflatten
from maml_cli.engines.outer_step import AverageGradient, run_norms
from maml_cli.engines.state import BatchGradient


class BlockShare(NamedTuple):
    """The blocks of tasks that a process computes.

    rank, size: the process and the number of processes: block b belongs to process b mod size.
    gather: rows of this process (blocks, ...) -> those of all processes (size, blocks, ...); the shapes are equal.
    """

    rank: int = 0
    size: int = 1
    gather: Callable[[Tensor], Tensor] = lambda rows: rows.unsqueeze(0)


ALL_BLOCKS = BlockShare()


def average_in_blocks(average: AverageGradient, num_blocks: int, share: BlockShare = ALL_BLOCKS) -> AverageGradient:
    """The mean over tasks that `average` computes, as the sum over `num_blocks` blocks of tasks, 1 <= blocks <= B.

    Block b has the tasks from floor(b B / blocks) on. Its gradients count by its number of tasks n_b / B; its loss by
    the tasks that were not skipped, as in the mean over all of them. The sums are equal to within rounding.
    """

    def average_blocks(meta_params: MetaParams, batch: TaskBatch, step: int) -> BatchGradient:
        blocks = _divide(batch, num_blocks)
        # Every process computes a block, so that it knows the shapes; surplus rows are dropped below.
        mine = blocks[share.rank :: share.size] or blocks[:1]
        results = [average(meta_params, block, step) for block in mine]
        rows = torch.stack(
            [_row(result, block, num_tasks(batch.query)) for result, block in zip(results, mine, strict=True)]
        )
        most = -(-num_blocks // share.size)
        padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
        in_order = share.gather(padded).transpose(0, 1).flatten(0, 1)[:num_blocks]
        total = reduce(torch.add, in_order.unbind())
        return _batch_gradient(total, results[0], num_tasks(batch.query))

    return average_blocks


def concat_blocks(meta_gradient: MetaGradient, num_blocks: int) -> MetaGradient:
    """The meta-gradient of each task, (R, B, ...), computed in blocks of tasks: with the memory of a block."""

    def by_task(meta_params: MetaParams, batch: TaskBatch, step: int) -> tuple[Tensor, MetaParams]:
        losses, gradients = zip(
            *(meta_gradient(meta_params, block, step) for block in _divide(batch, num_blocks)), strict=True
        )
        return torch.cat(losses, dim=1), MetaParams(
            *(
                {key: torch.cat([group[key] for group in groups], dim=1) for key in groups[0]}
                for groups in zip(*gradients, strict=True)
            )
        )

    return by_task


def _divide(batch: TaskBatch, num_blocks: int) -> list[TaskBatch]:
    """The blocks of a batch (R, B, ...), each (R, n_b, ...)."""
    count = num_tasks(batch.query)
    ends = [count * index // num_blocks for index in range(num_blocks + 1)]
    sizes = [end - start for start, end in pairwise(ends)]
    parts = [
        [Points(*block) for block in zip(*(torch.split(tensor, sizes, dim=1) for tensor in points), strict=True)]
        for points in batch
    ]
    return [TaskBatch(*block) for block in zip(*parts, strict=True)]


def _row(result: BatchGradient, block: TaskBatch, count: int) -> Tensor:
    """The contribution of a block to the sums, (R, P + 2): P gradients, loss, and tasks that were not skipped."""
    size = num_tasks(block.query)
    skipped = torch.zeros_like(result.loss) if result.skipped_tasks is None else result.skipped_tasks.to(result.loss)
    used = size - skipped
    loss = torch.where(used > 0, result.loss * used, 0.0)
    gradients = flatten(tensors(result.gradients)) * (size / count)
    return torch.cat([gradients, torch.stack([loss, used], dim=1)], dim=1)


def _batch_gradient(total: Tensor, like: BatchGradient, count: int) -> BatchGradient:
    """The sums over all blocks, (R, P + 2), as the mean over tasks; `like` has the keys and shapes."""
    values = iter(unflatten(total[:, :-2], tensors(like.gradients)))
    gradients = MetaParams(*({key: next(values) for key in group} for group in like.gradients))
    loss, used = total[:, -2], total[:, -1]
    skipped = None if like.skipped_tasks is None else (count - used).to(like.skipped_tasks)
    return BatchGradient(loss / used, run_norms(gradients), gradients, skipped)
