"""Learners as compositions of small functions: what adapts, by which update, and where the meta-gradient comes from."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core import inner_loop
from maml_cli.core.batch import Points
from maml_cli.core.inner_loop import UpdateRule
from maml_cli.core.losses import TaskLoss
from maml_cli.core.meta_gradients import Adapt, MetaGradient
from maml_cli.core.meta_params import MetaParams
from maml_cli.core.network import CONTEXT, Params

Unroll = Callable[[MetaParams, Points, int], Iterator[Params]]


class Algorithm(NamedTuple):
    """A learner as three pure functions.

    `init`: network parameters (R, ...) -> what is meta-learned.
    `unroll`: (meta broadcast to tasks, support, steps) -> the parameters (R, B, ...) after 0, 1, ..., steps inner
    steps; `per_task` broadcasts.
    `meta_grad`: (meta, batch, outer step) -> query losses after the last inner step (R, B), and the gradients of
    what is minimised, task by task, shaped (R, B, ...) under the keys of `meta`. What is not learned has no key.
    """

    init: Callable[[Params], MetaParams]
    unroll: Unroll
    meta_gradient: MetaGradient


class InnerLoop(NamedTuple):
    """An inner loop: model-agnostic meta-learning (Finn et al. 2017, arXiv:1703.03400) adapts by gradient descent.

    `adapted` names the parameters that adapt, `update` what their gradients become, and `fresh` adds what each task
    starts anew with. With `proximal` lambda > 0 it descends L(phi) + lambda / 2 |phi - theta|^2 in place of L.
    """

    loss: TaskLoss
    update: UpdateRule
    adapted: Collection[str]
    init_task_params: Callable[[Params], Params] = lambda params: params
    proximal: float = 0.0

    def unroll(
        self, meta: MetaParams, support: Points | Sequence[Points], steps: int, *, first_order: bool = False
    ) -> Iterator[Params]:
        """The parameters after 0, 1, ..., `steps` inner steps from `meta`, which is broadcast to tasks."""
        start = self.init_task_params(meta.params)
        loss = _with_proximal_term(self.loss, {key: start[key] for key in self.adapted}, self.proximal)
        return inner_loop.unroll(
            loss,
            start,
            meta.rule_params,
            self.update,
            support,
            steps=steps,
            adapted=self.adapted,
            first_order=first_order,
        )

    def with_annealed_order(self, steps: int, *, first_order_until: float = 0) -> Adapt:
        """`unroll` by `steps`, first order before outer step `first_order_until`: derivative-order annealing.

        MAML++ (Antoniou et al. 2018, arXiv:1810.09502, section 4). FOMAML is first order for ever.
        """
        return lambda meta, support, step: self.unroll(meta, support, steps, first_order=step < first_order_until)


def _with_proximal_term(loss: TaskLoss, anchor: Params, strength: float) -> TaskLoss:
    """`loss` and strength / 2 |phi - anchor|^2 (implicit MAML, Rajeswaran et al. 2019, arXiv:1909.04630, eq. 3)."""
    if not strength:
        return loss

    def held(params: Params, split: Points) -> Tensor:
        ways = [(params[key] - value).square().sum(dim=(-2, -1)) for key, value in anchor.items()]
        return loss(params, split) + strength / 2 * torch.stack(ways).sum(dim=0)

    return held


def with_context(params: Params, *, num_context: int) -> Params:
    """`params` and context inputs, zero where each task starts (CAVIA, Zintgraf et al. 2019, arXiv:1810.03642).

    (..., 1, num_context) under the key `context`, never learned by the outer loop; none for 0.
    """
    bias = params["head.b"]
    return params | {CONTEXT: bias.new_zeros(*bias.shape[:-1], num_context)} if num_context else params


def adapted_keys(params: Collection[str], *, subset: str) -> list[str]:
    """The parameters that adapt: `all`, the `head` (ANIL, Raghu et al. 2019, arXiv:1909.09157), the `body` (BOIL, Oh et
    al. 2020, arXiv:2008.08882) or the `context` (CAVIA, Zintgraf et al. 2019, arXiv:1810.03642)."""
    head = {key for key in params if key.startswith("head.")}
    chosen = {"all": {*params}, "head": head, "body": {*params} - head - {CONTEXT}, "context": {CONTEXT} & {*params}}
    return [key for key in params if key in chosen[subset]]
