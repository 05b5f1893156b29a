"""The mean meta-gradient of an outer step as one flat graph, both derivatives in it, compiled by torch.compile."""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.meta import Meta, tensors
from maml_cli.meta_gradients import MetaGrad
from maml_cli.outer import Mean, MeanGradient
from maml_cli.tasks import Split, TaskBatch

Flat = Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]


class Graph(NamedTuple):
    """A compiled function of flat lists of tensors, and the keys of the gradients among what it returns."""

    run: Flat
    keys: Sequence[Sequence[str]]


def compiled_mean(plain: MeanGradient, phase: Callable[[int], Hashable], *, say: Callable[[str], None]) -> MeanGradient:
    """`plain`, compiled once for each `phase(step)`: the outer steps of one phase compute the same function.

    The code is kept on disk by PyTorch, so that the next process finds it. On a GPU it runs as one CUDA graph.
    """
    graphs: dict[Hashable, Graph] = {}

    def mean(meta_grad: MetaGrad, meta: Meta, batch: TaskBatch, step: int, clip_task_norm: float | None) -> Mean:
        values, points = tensors(meta), [*batch.support, *batch.query]
        if phase(step) not in graphs:
            say("compiling the outer step; up to a minute ...")
            graphs[phase(step)] = _compiled(plain, meta_grad, meta, batch, step, clip_task_norm)
        graph = graphs[phase(step)]
        with torch.no_grad():
            loss, norm, *rest = graph.run(values, points)
        found = iter(rest)
        gradients = Meta(*({key: next(found) for key in keys} for keys in graph.keys))
        return Mean(loss, norm, gradients, next(found, None))

    return mean


def _compiled(
    plain: MeanGradient, meta_grad: MetaGrad, meta: Meta, batch: TaskBatch, step: int, clip_task_norm: float | None
) -> Graph:
    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import, and seldom needed

    keys: list[list[str]] = []

    def flat(values: Sequence[Tensor], points: Sequence[Tensor]) -> list[Tensor]:
        given = iter(values)
        whole = Meta(*({key: next(given) for key in part} for part in meta))
        seen = batch._replace(support=Split(*points[:2]), query=Split(*points[2:]))
        found = plain(meta_grad, whole, seen, step, clip_task_norm)
        keys[:] = [[*part] for part in found.gradients]
        left_out = [] if found.left_out is None else [found.left_out]
        return [found.loss, found.norm, *tensors(found.gradients), *left_out]

    traced = make_fx(flat)(tensors(meta), [*batch.support, *batch.query])
    on_gpu = batch.support.x.device.type == "cuda"
    return Graph(torch.compile(traced, fullgraph=True, mode="reduce-overhead" if on_gpu else None), keys)
