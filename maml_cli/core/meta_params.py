"""What the outer loop learns, and its way from the axis of runs to that of tasks.

Shapes: everything in a `Meta` has the leading axis R (runs); broadcast to tasks it has R, B. An alpha is
(R, S, 1, 1) or (R, S, in, out), where S is 1 (shared by all inner steps) or the number of inner steps; a factor of a
curvature is (R, S, in, in) or (R, S, out, out).
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from maml_cli.core.batch import Points
from maml_cli.core.network import Params


class MetaParams(NamedTuple):
    """All that the outer loop may learn: initial parameters, and how gradients become updates."""

    params: Params
    rule_params: Params


def num_tasks(split: Points) -> int:
    """B, the number of tasks in each run."""
    return split.x.shape[-3]


def expand_to_tasks(meta: MetaParams, num_tasks: int) -> MetaParams:
    """`meta` with an axis of tasks after the axis of runs, (R, ...) -> (R, B, ...), cut from its graph."""
    return map_tensors(
        lambda value: value.detach().unsqueeze(1).expand(-1, num_tasks, *value.shape[1:]),
        meta,
    )


def map_tensors(change: Callable[[Tensor], Tensor], meta: MetaParams) -> MetaParams:
    """`meta` with every tensor changed."""
    return MetaParams(*({key: change(value) for key, value in part.items()} for part in meta))


def tensors(meta: MetaParams) -> list[Tensor]:
    """All tensors of `meta`, the parameters first."""
    return [*meta.params.values(), *meta.rule_params.values()]
