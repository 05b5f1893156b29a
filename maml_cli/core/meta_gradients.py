"""Where the meta-gradient comes from: the query loss after adapting, its solution by implicit differentiation, the way
that adapting went, or no adapting at all.

Shapes: R runs, B tasks; gradients are per task, (R, B, ...), under the keys of what is learned.
"""

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor

from maml_cli.core import inner_loop
from maml_cli.core.batch import Points, TaskBatch
from maml_cli.core.inner_loop import RuleParamsByStep
from maml_cli.core.losses import TaskLoss
from maml_cli.core.meta_params import MetaParams, expand_to_tasks, num_tasks, tensors
from maml_cli.core.network import Params

MetaGradient = Callable[[MetaParams, TaskBatch, int], tuple[Tensor, MetaParams]]
"""(meta, batch, outer step) -> losses (R, B), on the query points after the last inner step unless it is said
otherwise; and gradients, task by task, of what is minimised."""

Adapt = Callable[[MetaParams, Points | Sequence[Points], int], Iterator[Params]]
"""(meta broadcast to tasks, support points, outer step) -> the parameters after 0, 1, ..., S inner steps."""

StepWeights = Callable[[int], Sequence[float]]
"""Outer step -> the weight of the query loss after each inner step 0..S; that of the last is not zero."""


def query_gradient(adapt: Adapt, loss: TaskLoss, *, learned: Collection[str], weights: StepWeights) -> MetaGradient:
    """The gradient of the query loss after the inner steps, weighted: sum over s of w_s loss(phi_s, query).

    With all weight on the last step this is MAML's (Finn et al. 2017, arXiv:1703.03400, eq. 1), else the multi-step
    loss of MAML++ (Antoniou et al. 2018, arXiv:1810.09502, eq. 4). `learned` are the keys of the rule that have
    gradients.
    """

    def meta_grad(meta: MetaParams, batch: TaskBatch, step: int) -> tuple[Tensor, MetaParams]:
        leaves = expand_to_tasks(meta, num_tasks(batch.support))
        leaning = MetaParams(leaves.params, {key: leaves.rule_params[key] for key in learned})
        for leaf in tensors(leaning):
            leaf.requires_grad_()
        objective = losses = torch.zeros(())
        for weight, adapted in zip(weights(step), adapt(leaves, batch.support, step), strict=True):
            if weight:
                losses = loss(adapted, batch.query)
                objective = losses if weight == 1 else objective + weight * losses
        return losses.detach(), _gradients(objective, leaning)

    return meta_grad


def implicit_gradient(
    adapt: Adapt, loss: TaskLoss, *, adapted: Collection[str], proximal: float, cg_steps: int
) -> MetaGradient:
    """Implicit MAML (Rajeswaran et al. 2019, arXiv:1909.04630, eq. 6): (I + H / lambda)^-1 dL(phi, query) / d phi.

    phi is where the inner loop ends on L(phi, support) + lambda / 2 |phi - theta|^2, taken for its minimum; H is the
    Hessian of L(., support) there, and the system is solved by `cg_steps` of conjugate gradients. Parameters that do
    not adapt get the gradient of the query loss less what they change through the minimum. The memory does not grow
    with the inner steps.
    """

    def meta_grad(meta: MetaParams, batch: TaskBatch, step: int) -> tuple[Tensor, MetaParams]:
        start = expand_to_tasks(meta, num_tasks(batch.support))
        with torch.no_grad():
            *_, optimum = adapt(start, batch.support, step)
        leaves = {key: value.detach().requires_grad_() for key, value in optimum.items()}
        losses = loss(leaves, batch.query)
        slopes = _gradients(losses, MetaParams(leaves, {})).params
        # One gradient step of size 1 is phi - dL/dphi: what its derivative makes of a vector z is z - H z.
        _, moved = inner_loop.unroll(loss, leaves, {}, identity_rule, batch.support, steps=1, adapted=adapted)
        ends = [moved[key] for key in adapted]

        def less_hessian(vector: Tensor) -> Params:
            parts = _split(vector, ends)
            found = torch.autograd.grad(
                ends, list(leaves.values()), parts, retain_graph=True, materialize_grads=True, allow_unused=True
            )
            return dict(zip(leaves, found, strict=True))

        def system(vector: Tensor) -> Tensor:
            kept = less_hessian(vector)
            return vector + (vector - _flat([kept[key] for key in adapted])) / proximal

        solution = conjugate_gradient(system, _flat([slopes[key] for key in adapted]), steps=cg_steps)
        mixed = less_hessian(solution)
        gradients = {key: slopes[key] + mixed[key] / proximal for key in meta.params}
        found = dict(zip(adapted, _split(solution, ends), strict=True))
        return losses.detach(), MetaParams({key: found.get(key, gradients[key]) for key in meta.params}, {})

    return meta_grad


def reptile_gradient(adapt: Adapt, loss: TaskLoss, *, steps: int) -> MetaGradient:
    """Reptile (Nichol et al. 2018, arXiv:1803.02999, eq. 2): theta - phi, to be descended.

    Each of the `steps` inner steps sees another K of all the points that the task has, K the number of its support
    points: the support points first, then the query points, and round again. The query loss is thus one of points that
    adapting saw.
    """

    def meta_grad(meta: MetaParams, batch: TaskBatch, step: int) -> tuple[Tensor, MetaParams]:
        start = expand_to_tasks(meta, num_tasks(batch.support))
        with torch.no_grad():
            *_, adapted = adapt(start, _minibatches(batch, steps), step)
            losses = loss(adapted, batch.query)
            return losses, MetaParams({key: value - adapted[key] for key, value in start.params.items()}, {})

    return meta_grad


def joint_gradient(loss: TaskLoss) -> MetaGradient:
    """Joint training: the gradient of the loss on all points of a task, support and query, without adapting.

    That loss is what it returns.
    """

    def meta_grad(meta: MetaParams, batch: TaskBatch, step: int) -> tuple[Tensor, MetaParams]:
        leaves = MetaParams(expand_to_tasks(meta, num_tasks(batch.support)).params, {})
        for leaf in tensors(leaves):
            leaf.requires_grad_()
        losses = loss(leaves.params, _all_points(batch))
        return losses.detach(), _gradients(losses, leaves)

    return meta_grad


def last_step_weights(steps: int) -> StepWeights:
    """All weight on the query loss after the last of `steps` inner steps."""
    weights = [0.0] * steps + [1.0]
    return lambda step: weights


def annealed_step_weights(steps: int, *, until: int) -> StepWeights:
    """Equal weights on inner steps 1..`steps`, moving linearly to all weight on the last at outer step `until`."""

    def weights(step: int) -> list[float]:
        share = max(0.0, 1 - step / until) / steps
        return [0.0, *[share] * (steps - 1), 1 - (steps - 1) * share]

    return weights


def conjugate_gradient(system: Callable[[Tensor], Tensor], target: Tensor, *, steps: int) -> Tensor:
    """`steps` steps of conjugate gradients from zero towards system(x) = target, for each (R, B) of (R, B, P).

    The system is symmetric. Where it turns out not to be positive definite, or is solved, that task stays as it is.
    """
    x, residual = torch.zeros_like(target), target
    direction, square = residual, _dot(residual, residual)
    solved = torch.finfo(target.dtype).eps ** 2 * square
    going = torch.ones_like(square, dtype=torch.bool)
    for _ in range(steps):
        image = system(direction)
        curvature = _dot(direction, image)
        going = going & (curvature > 0) & (square > solved)
        length = torch.where(going, square / curvature, 0.0)
        x = torch.where(going, x + length * direction, x)
        residual = torch.where(going, residual - length * image, residual)
        after = _dot(residual, residual)
        direction = residual + torch.where(going, after / square, 0.0) * direction
        square = after
    return x


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(dim=-1, keepdim=True)


def _flat(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.flatten(2) for value in values], dim=2)


def _split(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.split(vector, [value[0, 0].numel() for value in like], dim=2)
    return [part.reshape(value.shape) for part, value in zip(parts, like, strict=True)]


def _gradients(objective: Tensor, leaves: MetaParams) -> MetaParams:
    found = iter(torch.autograd.grad(objective.sum(), tensors(leaves)))
    return MetaParams(*({key: next(found) for key in part} for part in leaves))


def identity_rule(rule: RuleParamsByStep, gradients: Params, step: int, state: Params) -> tuple[Params, Params]:
    return gradients, state


def _all_points(batch: TaskBatch) -> Points:
    return Points(*(torch.cat(parts, dim=-2) for parts in zip(batch.support, batch.query, strict=True)))


def _minibatches(batch: TaskBatch, steps: int) -> list[Points]:
    points, size = _all_points(batch), batch.support.x.shape[-2]
    places = torch.arange(steps * size, device=points.x.device) % points.x.shape[-2]
    return [Points(*(part.index_select(-2, chosen) for part in points)) for chosen in torch.split(places, size)]
