"""The inner loop: parameters adapted to tasks by unrolled gradient descent.

Everything that adapts in this project, in training, evaluation and the self-checks, goes through `unroll`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from maml_cli.core.batch import Points
from maml_cli.core.losses import TaskLoss
from maml_cli.core.network import Params

RuleParamsByStep = Mapping[str, Sequence[Tensor]]
"""What a rule holds, by inner step; one entry where all steps share it."""

UpdateRule = Callable[[RuleParamsByStep, Params, int, Params], tuple[Params, Params]]
"""(rule, gradients, inner step, state) -> what is subtracted from the parameters, under the keys of the gradients;
and what the next step gets as its state, which is empty at the first."""


def unroll(
    loss: TaskLoss,
    params: Params,
    rule: Params,
    update: UpdateRule,
    support: Points | Sequence[Points],
    *,
    steps: int,
    first_order: bool = False,
    adapted: Collection[str] | None = None,
) -> Iterator[Params]:
    """The parameters after 0, 1, ..., `steps` inner steps: `steps + 1` dictionaries.

    Each step is phi <- phi - update(rule, d loss(phi, support) / d phi, step) on the keys in `adapted`, by
    default all; the other parameters stay (Finn et al. 2017, arXiv:1703.03400, Algorithm 1, line 6). `support` is the
    same for every step, or a sequence of one for each. What the `rule` holds is (..., S, n, m), S the number of steps
    that have something of their own, or 1.

    The steps stay differentiable in everything they were computed from: the initial parameters, the rule and
    the support points. With `first_order` the gradients count as constants (FOMAML, ibid. section 5.2), and
    where the caller has switched gradients off no graph is built through the steps at all.

    `params` have the leading axes of the loss: parameters that tasks share must be expanded, not broadcast,
    or the gradient of one would be the sum over all.
    """
    # Taken apart once: the derivative of each single part would be as large as the whole.
    by_step = {key: value.unbind(-3) for key, value in rule.items()}
    state: Params = {}
    yield params
    for step in range(steps):
        points = support if isinstance(support, Points) else support[step]
        gradients = _support_gradients(loss, params, points, params if adapted is None else adapted, first_order)
        updates, state = update(by_step, gradients, step, state)
        params = params | {key: params[key] - updates[key] for key in gradients}
        yield params


def _support_gradients(
    loss: TaskLoss, params: Params, support: Points, adapted: Collection[str], first_order: bool
) -> Params:
    create_graph = torch.is_grad_enabled() and not first_order
    # A `with` that closes before the caller's `yield`, so that its grad mode does not leak out of the generator.
    with torch.enable_grad():
        leaves = {key: params[key] if create_graph else params[key].detach() for key in adapted}
        leaves = {key: leaf if leaf.requires_grad else leaf.detach().requires_grad_() for key, leaf in leaves.items()}
        # Summed, not averaged, so that each task sees only its own gradient.
        total = loss(params | leaves, support).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()), create_graph=create_graph)
    return dict(zip(leaves, gradients, strict=True))
