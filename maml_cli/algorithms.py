"""Learners as compositions of small functions: what adapts, by which update, and where the meta-gradient comes from.

Shapes: everything in a `Meta` has the leading axis R (runs); broadcast to tasks it has R, B. An alpha is
(R, S, 1, 1) or (R, S, in, out), where S is 1 (shared by all inner steps) or the number of inner steps.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli import inner
from maml_cli.inner import UpdateRule
from maml_cli.losses import TaskLoss
from maml_cli.model import Params
from maml_cli.tasks import Split, TaskBatch


class Meta(NamedTuple):
    """All that the outer loop may learn: initial parameters, and how gradients become updates."""

    params: Params
    rule: Params


Unroll = Callable[[Meta, Split, int], Iterator[Params]]
MetaGrad = Callable[[Meta, TaskBatch, int], tuple[Tensor, Meta]]
Weights = Callable[[int], Sequence[float]]
"""Outer step -> the weight of the query loss after each inner step 0..S; that of the last is not zero."""

Beyond = Callable[[int], float]
"""How many steps past the last alpha -> the factor on it."""

BEYOND: dict[str, Beyond] = {
    "hold": lambda excess: 1.0,
    "decay": lambda excess: 0.5**excess,
    "stop": lambda excess: 0.0,
}


class Algorithm(NamedTuple):
    """A learner as three pure functions.

    `init`: network parameters (R, ...) -> what is meta-learned.
    `unroll`: (meta broadcast to tasks, support, steps) -> the parameters (R, B, ...) after 0, 1, ..., steps inner
    steps; `per_task` broadcasts.
    `meta_grad`: (meta, batch, outer step) -> query losses after the last inner step (R, B), and the gradients of
    what is minimised, task by task, shaped (R, B, ...) under the keys of `meta`. What is not learned has no key.
    """

    init: Callable[[Params], Meta]
    unroll: Unroll
    meta_grad: MetaGrad


def maml(
    loss: TaskLoss,
    *,
    groups: Mapping[str, str],
    init_rule: Callable[[Params], Params],
    learns_rule: bool,
    steps: int,
    first_order: bool = False,
    first_order_until: int = 0,
    weights: Weights | None = None,
    beyond: Beyond = BEYOND["hold"],
) -> Algorithm:
    """Model-agnostic meta-learning (Finn et al. 2017, arXiv:1703.03400).

    `groups` names the parameters that adapt, each with the alpha it goes by. With `learns_rule` the alphas are
    learned too (Meta-SGD, Li et al. 2017, arXiv:1707.09835, when there is one for each parameter). The first
    `first_order_until` outer steps are first order (derivative-order annealing), and `weights` spread what is
    minimised over the inner steps (multi-step loss), both of MAML++ (Antoniou et al. 2018, arXiv:1810.09502).
    """
    update = scaled_gradient(groups, beyond=beyond)

    def adapt(meta: Meta, support: Split, steps: int, first_order: bool = first_order) -> Iterator[Params]:
        return inner.unroll(
            loss,
            meta.params,
            meta.rule,
            update,
            support,
            steps=steps,
            adapted=groups.keys(),
            first_order=first_order,
        )

    return Algorithm(
        init=lambda params: Meta(params, init_rule(params)),
        unroll=adapt,
        meta_grad=query_gradient(
            lambda meta, support, step: adapt(meta, support, steps, first_order or step < first_order_until),
            loss,
            learns_rule=learns_rule,
            weights=weights or last_step(steps),
        ),
    )


def scaled_gradient(groups: Mapping[str, str], *, beyond: Beyond = BEYOND["hold"]) -> UpdateRule:
    """Gradient descent with the step size alpha of each parameter's group: alpha * gradient.

    After the last step that has an alpha of its own, that alpha goes on, times `beyond(1)`, `beyond(2)`, ...
    """

    def update(rule: Params, gradients: Params, step: int) -> Params:
        alphas = {}
        for group, alpha in rule.items():
            count = alpha.shape[-3]
            alphas[group] = alpha.select(-3, min(step, count - 1))
            if count > 1 and step >= count:
                alphas[group] = alphas[group] * beyond(step - count + 1)
        return {key: alphas[groups[key]] * gradient for key, gradient in gradients.items()}

    return update


def query_gradient(
    adapt: Callable[[Meta, Split, int], Iterator[Params]], loss: TaskLoss, *, learns_rule: bool, weights: Weights
) -> MetaGrad:
    """The gradient of the query loss after the inner steps, weighted: sum over s of w_s loss(phi_s, query).

    With all weight on the last step this is MAML's (Finn et al. 2017, eq. 1), else the multi-step loss of MAML++
    (Antoniou et al. 2018, eq. 4). `adapt` is (meta, support, outer step) -> phi_0, ..., phi_S.
    """

    def meta_grad(meta: Meta, batch: TaskBatch, step: int) -> tuple[Tensor, Meta]:
        leaves = per_task(meta, num_tasks(batch.support))
        learned = Meta(leaves.params, leaves.rule if learns_rule else {})
        for leaf in tensors(learned):
            leaf.requires_grad_()
        objective = losses = torch.zeros(())
        for weight, adapted in zip(weights(step), adapt(leaves, batch.support, step), strict=True):
            if weight:
                losses = loss(adapted, batch.query)
                objective = losses if weight == 1 else objective + weight * losses
        gradients = iter(torch.autograd.grad(objective.sum(), tensors(learned)))
        return losses.detach(), Meta(*({key: next(gradients) for key in part} for part in learned))

    return meta_grad


def last_step(steps: int) -> Weights:
    """All weight on the query loss after the last of `steps` inner steps."""
    weights = [0.0] * steps + [1.0]
    return lambda step: weights


def annealed_to_last(steps: int, *, until: int) -> Weights:
    """Equal weights on inner steps 1..`steps`, moving linearly to all weight on the last at outer step `until`."""

    def weights(step: int) -> list[float]:
        share = max(0.0, 1 - step / until) / steps
        return [0.0, *[share] * (steps - 1), 1 - (steps - 1) * share]

    return weights


def alpha_groups(params: Collection[str], *, per: str) -> dict[str, str]:
    """Which alpha each of the parameters `params` goes by: one for all, one a layer, one a tensor or more."""
    name: dict[str, Callable[[str], str]] = {
        "scalar": lambda key: "alpha",
        "layer": lambda key: key.rpartition(".")[0],
        "tensor": lambda key: key,
        "parameter": lambda key: key,
    }
    return {key: name[per](key) for key in params}


def init_alphas(
    params: Params, groups: Mapping[str, str], *, value: float, per_parameter: bool, num_alphas: int
) -> Params:
    """Alphas that all start at `value`: (R, num_alphas, 1, 1), or of the shape of their parameter."""
    alphas = {}
    for key, group in groups.items():
        runs, *shape = params[key].shape
        size = shape if per_parameter else [1, 1]
        alphas[group] = params[key].new_full((runs, num_alphas, *size), value)
    return alphas


def adapted_keys(params: Collection[str], *, subset: str) -> list[str]:
    """The parameters that adapt: `all`, the `head` (ANIL, arXiv:1909.09157) or the `body` (BOIL, arXiv:2008.08882)."""
    head = {key for key in params if key.startswith("head.")}
    return [key for key in params if subset == "all" or (key in head) == (subset == "head")]


def num_tasks(split: Split) -> int:
    """B, the number of tasks in each run."""
    return split.x.shape[-3]


def per_task(meta: Meta, num_tasks: int) -> Meta:
    """`meta` with an axis of tasks after the axis of runs, (R, ...) -> (R, B, ...), cut from its graph."""
    return Meta(
        *(
            {key: value.detach().unsqueeze(1).expand(-1, num_tasks, *value.shape[1:]) for key, value in part.items()}
            for part in meta
        )
    )


def tensors(meta: Meta) -> list[Tensor]:
    """All tensors of `meta`, the parameters first."""
    return [*meta.params.values(), *meta.rule.values()]
