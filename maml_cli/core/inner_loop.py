"""The inner loop: parameters adapted to tasks by unrolled gradient descent.

Everything that adapts in this project, in training, evaluation and the self-checks, goes through `unroll`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from maml_cli.core.batch import Points
from maml_cli.core.losses import TaskLoss
from maml_cli.core.meta_params import MetaParams
from maml_cli.core.network import Params

RuleParamsByStep = Mapping[str, Sequence[Tensor]]
"""The parameters of an update rule by inner step: key -> S tensors of shape (*batch, rows, columns).

S: the number of inner steps, or 1 for a parameter that all inner steps share.
*batch: the axes of the adapted parameters, (R, B) for runs and tasks.
rows, columns: (1, 1) for an alpha of several parameters, (in, out) for an alpha of each parameter, (in, in) or
(out, out) for a factor of a curvature.
"""

UpdateRule = Callable[[RuleParamsByStep, Params, int, Params], tuple[Params, Params]]
"""(rule_params, gradients, inner step, state) -> (updates, next state).

gradients: of the support loss, or the updates of the preceding transform; (*batch, in, out) under the keys that adapt.
inner step: from 0.
state: tensors that the rule carries from one inner step to the next, such as running means; empty at inner step 0.
updates: subtracted from the parameters, under the keys of the gradients.
"""


def unroll(
    loss: TaskLoss | Sequence[TaskLoss],
    meta_params: MetaParams,
    update: UpdateRule,
    support: Points | Sequence[Points],
    *,
    steps: int,
    first_order: bool = False,
    adapted: Collection[str] | None = None,
) -> Iterator[Params]:
    """The parameters after 0, 1, ..., `steps` inner steps: `steps + 1` dictionaries of tensors (*batch, in, out).

    Inner step s is phi <- phi - update(rule_params, d loss(phi, support) / d phi, s) on the keys in `adapted`, by
    default all; the other parameters are constant (Finn et al. 2017, arXiv:1703.03400, Algorithm 1, line 6).
    `support` is one set of points for all inner steps, or a sequence with one set for each; `loss` likewise. The
    parameters of the rule have an axis of inner steps before the last two: (*batch, S, rows, columns), see
    `RuleParamsByStep`.

    The results are differentiable in the initial parameters, the rule's parameters and the support points. With
    `first_order` the gradients count as constants (FOMAML, ibid. section 5.2); where the caller has switched gradients
    off, no graph is built.

    `meta_params` have the leading axes of the loss: parameters that tasks share must be expanded, not broadcast, or the
    gradient of each task would be the sum over all.

    Two inner steps of 0.25 on (w - 8)^2 from w = 0, where the gradient is 2 (w - 8):

    >>> from maml_cli.core.update_rules import scale_by_alpha
    >>> loss = lambda params, points: ((params["w"] - points.y) ** 2).sum(dim=(-2, -1))
    >>> support = Points(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 8.0))
    >>> start = MetaParams({"w": torch.zeros(1, 1, 1, 1)}, {"alpha": torch.full((1, 1, 1, 1, 1), 0.25)})
    >>> [phi["w"].item() for phi in unroll(loss, start, scale_by_alpha({"w": "alpha"}), support, steps=2)]
    [0.0, 4.0, 6.0]
    """
    # Unbound once: the derivative of each single slice would be as large as the entire tensor.
    by_step = {key: value.unbind(-3) for key, value in meta_params.rule_params.items()}
    params, state = meta_params.params, Params()
    yield params
    for step in range(steps):
        points = support if isinstance(support, Points) else support[step]
        loss_at_step = loss[step] if isinstance(loss, Sequence) else loss
        gradients = _support_gradients(
            loss_at_step, params, points, params if adapted is None else adapted, first_order
        )
        updates, state = update(by_step, gradients, step, state)
        params = params | {key: params[key] - updates[key] for key in gradients}
        yield params


def _support_gradients(
    loss: TaskLoss, params: Params, support: Points, adapted: Collection[str], first_order: bool
) -> Params:
    """d loss / d params of each task for the keys in `adapted`; a graph is built for second order alone."""
    create_graph = torch.is_grad_enabled() and not first_order
    # A `with` that closes before the caller's `yield`, so that its grad mode does not leak out of the generator.
    with torch.enable_grad():
        leaves = {key: params[key] if create_graph else params[key].detach() for key in adapted}
        leaves = {key: leaf if leaf.requires_grad else leaf.detach().requires_grad_() for key, leaf in leaves.items()}
        # Summed, not averaged, so that the gradient of each task does not depend on the number of tasks.
        total = loss(params | leaves, support).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()), create_graph=create_graph)
    return dict(zip(leaves, gradients, strict=True))
