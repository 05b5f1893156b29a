"""Meta-parameters: the tensors that the outer loop learns, and operations that do not depend on the learner.

Shapes: every tensor of a MetaParams has the leading axis R (runs, that is seeds trained side by side); expanded to
tasks it has R, B. An alpha is (R, S, 1, 1) or (R, S, in, out), where S is 1 (shared by all inner steps) or the number
of inner steps; a factor of a curvature is (R, S, in, in) or (R, S, out, out).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core.batch import Points
from maml_cli.core.network import Params


class MetaParams(NamedTuple):
    """Everything that the outer loop may learn.

    params: the initial parameters of the network.
    rule_params: the parameters of the update rule, such as alphas and curvature.
    """

    params: Params
    rule_params: Params


def num_tasks(points: Points) -> int:
    """B, the number of tasks in each run."""
    return points.x.shape[-3]


def expand_to_tasks(meta_params: MetaParams, num_tasks: int) -> MetaParams:
    """`meta_params` with an axis of tasks after the axis of runs, (R, ...) -> (R, B, ...), detached from its graph."""
    return map_tensors(
        lambda value: value.detach().unsqueeze(1).expand(-1, num_tasks, *value.shape[1:]),
        meta_params,
    )


def map_tensors(change: Callable[[Tensor], Tensor], meta_params: MetaParams) -> MetaParams:
    """`meta_params` with `change` applied to every tensor."""
    return MetaParams(*({key: change(value) for key, value in group.items()} for group in meta_params))


def tensors(meta_params: MetaParams) -> list[Tensor]:
    """All tensors of `meta_params`, the network's parameters first."""
    return [*meta_params.params.values(), *meta_params.rule_params.values()]


def select_run(meta_params: MetaParams, index: int) -> MetaParams:
    """One run, counted along the first axis, as a MetaParams of a single run: (R, ...) -> (1, ...)."""
    return map_tensors(lambda value: value[index : index + 1], meta_params)


def flatten(values: Sequence[Tensor], *, batch_dims: int = 1) -> Tensor:
    """All values of each batch entry as one row: tensors (*batch, ...) -> (*batch, P).

    >>> flatten([torch.zeros(2, 3, 4), torch.zeros(2, 5)]).shape  # 3 * 4 + 5 values for each of 2 runs
    torch.Size([2, 17])
    """
    return torch.cat([value.flatten(batch_dims) for value in values], dim=-1)


def unflatten(rows: Tensor, like: Sequence[Tensor], *, batch_dims: int = 1) -> list[Tensor]:
    """The inverse of `flatten`: rows (*batch, P) as tensors of the shapes of `like`, which have the same batch axes."""
    sizes = [value.shape[batch_dims:].numel() for value in like]
    chunks = torch.split(rows, sizes, dim=-1)
    return [chunk.reshape(value.shape) for chunk, value in zip(chunks, like, strict=True)]


def relative_distance(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """|actual - expected| / |expected|, both as one vector of all their values in float64."""
    difference = torch.stack([(a.double() - e.double()).square().sum() for a, e in zip(actual, expected, strict=True)])
    size = torch.stack([e.double().square().sum() for e in expected])
    return (difference.sum().sqrt() / size.sum().sqrt()).item()
