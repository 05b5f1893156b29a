"""Learners as compositions of small functions: what adapts, by which update, and how the meta-gradient is taken."""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from maml_cli.core import inner_loop
from maml_cli.core.batch import Points
from maml_cli.core.inner_loop import UpdateRule
from maml_cli.core.losses import TaskLoss
from maml_cli.core.meta_gradients import Adapt, MetaGradient
from maml_cli.core.meta_params import MetaParams
from maml_cli.core.network import CONTEXT, Params
from maml_cli.core.ridge import BODY_PENALTY, PENALTY, RidgeHead
from maml_cli.core.tables import lookup

Unroll = Callable[[MetaParams, Points, int], Iterator[Params]]
"""(meta_params expanded to tasks, support points, S) -> the parameters (R, B, ...) after 0, 1, ..., S inner steps."""


class Algorithm(NamedTuple):
    """A learner as three pure functions.

    init: (network parameters (R, ...), R generators of what else is random) -> the initial meta-parameters.
    unroll: (meta_params expanded to tasks, support points, S) -> the parameters (R, B, ...) after 0, 1, ..., S inner
        steps; `expand_to_tasks` expands.
    meta_gradient: (meta_params, batch, outer step) -> query losses after the last inner step (R, B), and gradients of
        the objective for each task, (R, B, ...) under the keys of `meta_params`; keys that are not learned are absent.
    """

    init: Callable[[Params, Sequence[Generator]], MetaParams]
    unroll: Unroll
    meta_gradient: MetaGradient


class InnerLoop(NamedTuple):
    """An inner loop: model-agnostic meta-learning (Finn et al. 2017, arXiv:1703.03400) adapts by gradient descent.

    loss: the inner loss of each task.
    update: the rule that makes updates of its gradients.
    adapted: the keys of the parameters that adapt.
    init_task_params: network parameters -> the parameters that each task starts from, with context inputs if any.
    proximal: lambda; the inner loss is L(phi) + lambda / 2 |phi - theta|^2.
    head: a head that is solved for in closed form after each inner step, on the features of the body, which descends
        the minimum of its loss over heads; None: the head adapts as other layers do.
    """

    loss: TaskLoss
    update: UpdateRule
    adapted: Collection[str]
    init_task_params: Callable[[Params], Params] = lambda params: params
    proximal: float = 0.0
    head: RidgeHead | None = None

    def unroll(
        self, meta_params: MetaParams, support: Points | Sequence[Points], steps: int, *, first_order: bool = False
    ) -> Iterator[Params]:
        """The parameters after 0, 1, ..., `steps` inner steps from `meta_params`, which are expanded to tasks."""
        start = self.init_task_params(meta_params.params)
        if self.head is not None:
            assert isinstance(support, Points)
            return self._unroll_with_head(self.head, meta_params._replace(params=start), support, steps, first_order)
        loss = _with_proximal_term(self.loss, {key: start[key] for key in self.adapted}, self.proximal)
        return inner_loop.unroll(
            loss,
            meta_params._replace(params=start),
            self.update,
            support,
            steps=steps,
            adapted=self.adapted,
            first_order=first_order,
        )

    def _unroll_with_head(
        self, head: RidgeHead, meta_params: MetaParams, support: Points, steps: int, first_order: bool
    ) -> Iterator[Params]:
        """The parameters after 0, 1, ..., `steps` inner steps: the body after as many gradient steps, and from the
        first on the head that is solved for on it; with noise, the posterior as well, which is the prior at first."""
        rule_params = meta_params.rule_params
        body: Iterable[Params] = itertools.repeat(meta_params.params, steps + 1)
        if self.adapted:
            losses = head.losses(rule_params[BODY_PENALTY], steps)
            body = inner_loop.unroll(
                losses,
                meta_params,
                self.update,
                support,
                steps=steps,
                adapted=self.adapted,
                first_order=first_order,
            )
        nothing = Points(*(values[..., :0, :] for values in support))
        for step, params in enumerate(body):
            points = support if step else nothing
            solved = head.solve(params, support, rule_params[PENALTY].squeeze(-3)) if step else params
            yield solved | head.posterior(params, points, rule_params)

    def with_annealed_order(self, steps: int, *, first_order_until: float = 0) -> Adapt:
        """`unroll` by `steps` inner steps, first order before outer step `first_order_until`, then second order.

        Derivative-order annealing of MAML++ (Antoniou et al. 2018, arXiv:1810.09502, section 4); FOMAML is first order
        until infinity.
        """
        return lambda meta_params, support, step: self.unroll(
            meta_params, support, steps, first_order=step < first_order_until
        )


def _with_proximal_term(loss: TaskLoss, center: Params, strength: float) -> TaskLoss:
    """`loss` and strength / 2 |phi - center|^2 (implicit MAML, Rajeswaran et al. 2019, arXiv:1909.04630, eq. 3)."""
    if not strength:
        return loss

    def regularised(params: Params, points: Points) -> Tensor:
        squared_distances = [(params[key] - value).square().sum(dim=(-2, -1)) for key, value in center.items()]
        return loss(params, points) + strength / 2 * torch.stack(squared_distances).sum(dim=0)

    return regularised


def with_context(params: Params, *, num_context: int) -> Params:
    """`params` and context inputs of zero, (..., 1, num_context) under the key `context`; no key for 0.

    Where each task starts from zero, this is the context of CAVIA (Zintgraf et al. 2019, arXiv:1810.03642). A context
    that is among `params` already is left as it is: then the outer loop learns it, from zero, and if the weights adapt
    as well, it is the bias transformation (Finn et al. 2017, arXiv:1709.04905, section 4.2): with weights W of the
    context k, an inner step moves the bias b + k W of the first layer by -alpha d (1 + |k|^2 + W^T W), d its gradient,
    to first order in alpha, so that k and W are a learned preconditioner.
    """
    bias = params["head.b"]
    if not num_context or CONTEXT in params:
        return params
    return params | {CONTEXT: bias.new_zeros(*bias.shape[:-1], num_context)}


ADAPTED_SUBSETS: dict[str, Callable[[str], bool]] = {
    "all": lambda key: True,
    "head": lambda key: key.startswith("head."),
    "body": lambda key: not key.startswith("head.") and key != CONTEXT,
    "context": lambda key: key == CONTEXT,
}
"""Values of `inner.adapt`: whether the parameter of that name adapts."""


def adapted_keys(params: Collection[str], *, subset: str) -> list[str]:
    """The parameters that adapt, in the order of `params`.

    `all`, the `head` (ANIL, Raghu et al. 2019, arXiv:1909.09157), the `body` (BOIL, Oh et al. 2020, arXiv:2008.08882)
    or the `context` (CAVIA, Zintgraf et al. 2019, arXiv:1810.03642).

    >>> adapted_keys(["hidden0.w", "hidden0.b", "head.w", "head.b"], subset="head")
    ['head.w', 'head.b']
    """
    adapts = lookup(ADAPTED_SUBSETS, subset, "inner.adapt", "core.algorithms.ADAPTED_SUBSETS")
    return [key for key in params if adapts(key)]
