"""Meta-gradients: of the query loss after adapting (unrolled or implicit), of Reptile, and of joint training.

Shapes: R runs, B tasks; gradients are per task, (R, B, ...), under the keys of the parameters that are learned.
"""

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor

from maml_cli.core import inner_loop
from maml_cli.core.batch import Points, TaskBatch
from maml_cli.core.losses import TaskLoss
from maml_cli.core.meta_params import MetaParams, expand_to_tasks, flatten, num_tasks, tensors, unflatten
from maml_cli.core.network import Params
from maml_cli.core.ridge import BODY_PENALTY
from maml_cli.core.update_rules import identity

MetaGradient = Callable[[MetaParams, TaskBatch, int], tuple[Tensor, MetaParams]]
"""(meta_params (R, ...), batch, outer step) -> (losses, gradients).

losses: (R, B), query losses after the last inner step, unless a function's docstring names another loss.
gradients: of the objective, for each task, (R, B, ...).
"""

Adapt = Callable[[MetaParams, Points | Sequence[Points], int], Iterator[Params]]
"""(meta_params expanded to tasks, support points, outer step) -> the parameters after 0, 1, ..., S inner steps."""

StepWeights = Callable[[int], Sequence[float]]
"""Outer step -> the weight of the query loss after each inner step 0..S; that of the last is not zero."""


def query_gradient(adapt: Adapt, loss: TaskLoss, *, learned: Collection[str], weights: StepWeights) -> MetaGradient:
    """The gradient of the weighted query losses after the inner steps: sum over s of w_s loss(phi_s, query).

    With all weight on the last step this is MAML's (Finn et al. 2017, arXiv:1703.03400, eq. 1), else the multi-step
    loss of MAML++ (Antoniou et al. 2018, arXiv:1810.09502, eq. 4). `learned` are the keys of the rule's parameters
    that have gradients.
    """

    def meta_gradient(meta_params: MetaParams, batch: TaskBatch, step: int) -> tuple[Tensor, MetaParams]:
        leaves = expand_to_tasks(meta_params, num_tasks(batch.support))
        differentiable = MetaParams(leaves.params, {key: leaves.rule_params[key] for key in learned})
        for leaf in tensors(differentiable):
            leaf.requires_grad_()
        objective = losses = torch.zeros(())
        for weight, adapted in zip(weights(step), adapt(leaves, batch.support, step), strict=True):
            if weight:
                losses = loss(adapted, batch.query)
                objective = losses if weight == 1 else objective + weight * losses
        return losses.detach(), _gradients(objective, differentiable, may_be_unused=(BODY_PENALTY,))

    return meta_gradient


def implicit_gradient(
    adapt: Adapt, loss: TaskLoss, *, adapted: Collection[str], proximal: float, cg_steps: int
) -> MetaGradient:
    """Implicit MAML (Rajeswaran et al. 2019, arXiv:1909.04630, eq. 6): (I + H / lambda)^-1 dL(phi, query) / d phi.

    phi is the last iterate of the inner loop on L(phi, support) + lambda / 2 |phi - theta|^2, taken for its minimum; H
    is the Hessian of L(., support) there, and the system is solved by `cg_steps` steps of conjugate gradients.
    Parameters psi that do not adapt have the gradient dL(phi, query) / d psi - (d^2 L(phi, support) / d psi d phi) x,
    with x the solution divided by lambda. The memory does not grow with the inner steps.
    """

    def meta_gradient(meta_params: MetaParams, batch: TaskBatch, step: int) -> tuple[Tensor, MetaParams]:
        start = expand_to_tasks(meta_params, num_tasks(batch.support))
        with torch.no_grad():
            *_, optimum = adapt(start, batch.support, step)
        leaves = {key: value.detach().requires_grad_() for key, value in optimum.items()}
        losses = loss(leaves, batch.query)
        query_gradients = _gradients(losses, MetaParams(leaves, {})).params
        # The vector-Jacobian product of one inner step of size 1, phi - dL/dphi, maps z to z - H z.
        _, stepped = inner_loop.unroll(loss, MetaParams(leaves, {}), identity, batch.support, steps=1, adapted=adapted)
        one_step = [stepped[key] for key in adapted]

        def identity_minus_hessian(vector: Tensor) -> Params:
            """(I - H) z on the parameters that adapt, and -(d^2 L / d psi d phi) z on the others."""
            products = torch.autograd.grad(
                one_step,
                list(leaves.values()),
                unflatten(vector, one_step, batch_dims=2),
                retain_graph=True,
                materialize_grads=True,
                allow_unused=True,
            )
            return dict(zip(leaves, products, strict=True))

        def system(vector: Tensor) -> Tensor:
            """(I + H / lambda) z."""
            products = identity_minus_hessian(vector)
            return vector + (vector - flatten([products[key] for key in adapted], batch_dims=2)) / proximal

        target = flatten([query_gradients[key] for key in adapted], batch_dims=2)
        solution = conjugate_gradient(system, target, steps=cg_steps)
        cross_term = identity_minus_hessian(solution)
        gradients = {key: query_gradients[key] + cross_term[key] / proximal for key in meta_params.params}
        solved = dict(zip(adapted, unflatten(solution, one_step, batch_dims=2), strict=True))
        return losses.detach(), MetaParams({key: solved.get(key, gradients[key]) for key in meta_params.params}, {})

    return meta_gradient


def reptile_gradient(adapt: Adapt, loss: TaskLoss, *, steps: int) -> MetaGradient:
    """Reptile (Nichol et al. 2018, arXiv:1803.02999, eq. 2): theta - phi, the negative of its update direction.

    Each of the `steps` inner steps sees another minibatch of K of the task's points, K the number of its support
    points: cyclically, the support points first and then the query points. The query loss is thus of points that the
    inner loop has seen.
    """

    def meta_gradient(meta_params: MetaParams, batch: TaskBatch, step: int) -> tuple[Tensor, MetaParams]:
        start = expand_to_tasks(meta_params, num_tasks(batch.support))
        with torch.no_grad():
            *_, adapted = adapt(start, _minibatches(batch, steps), step)
            losses = loss(adapted, batch.query)
            return losses, MetaParams({key: value - adapted[key] for key, value in start.params.items()}, {})

    return meta_gradient


def joint_gradient(loss: TaskLoss) -> MetaGradient:
    """Joint training: the gradient of the loss on all points of a task, support and query, without adapting.

    The losses (R, B) that it returns are those on all points.
    """

    def meta_gradient(meta_params: MetaParams, batch: TaskBatch, step: int) -> tuple[Tensor, MetaParams]:
        leaves = MetaParams(expand_to_tasks(meta_params, num_tasks(batch.support)).params, {})
        for leaf in tensors(leaves):
            leaf.requires_grad_()
        losses = loss(leaves.params, _all_points(batch))
        return losses.detach(), _gradients(losses, leaves)

    return meta_gradient


def last_step_weights(steps: int) -> StepWeights:
    """All weight on the query loss after the last of `steps` inner steps.

    >>> last_step_weights(2)(0)
    [0.0, 0.0, 1.0]
    """
    weights = [0.0] * steps + [1.0]
    return lambda step: weights


def annealed_step_weights(steps: int, *, until: int) -> StepWeights:
    """Equal weights on inner steps 1..`steps`, annealed linearly to all weight on the last at outer step `until`.

    >>> weights = annealed_step_weights(2, until=10)
    >>> weights(0), weights(5), weights(10)
    ([0.0, 0.5, 0.5], [0.0, 0.25, 0.75], [0.0, 0.0, 1.0])
    """

    def weights(step: int) -> list[float]:
        share = max(0.0, 1 - step / until) / steps
        return [0.0, *[share] * (steps - 1), 1 - (steps - 1) * share]

    return weights


def conjugate_gradient(system: Callable[[Tensor], Tensor], target: Tensor, *, steps: int) -> Tensor:
    """`steps` steps of conjugate gradients from zero for system(x) = target, for each row of (R, B, P).

    `system` is a symmetric linear function. A row is frozen where its residual has vanished or the system shows
    negative curvature (Hestenes and Stiefel 1952).

    >>> conjugate_gradient(lambda x: 2 * x, torch.tensor([[[6.0, 8.0]]]), steps=1)
    tensor([[[3., 4.]]])
    """
    x, residual = torch.zeros_like(target), target
    direction, residual_norm_sq = residual, _dot(residual, residual)
    solved = torch.finfo(target.dtype).eps ** 2 * residual_norm_sq
    active = torch.ones_like(residual_norm_sq, dtype=torch.bool)
    for _ in range(steps):
        image = system(direction)
        curvature = _dot(direction, image)
        active = active & (curvature > 0) & (residual_norm_sq > solved)
        length = torch.where(active, residual_norm_sq / curvature, 0.0)
        x = torch.where(active, x + length * direction, x)
        residual = torch.where(active, residual - length * image, residual)
        next_norm_sq = _dot(residual, residual)
        direction = residual + torch.where(active, next_norm_sq / residual_norm_sq, 0.0) * direction
        residual_norm_sq = next_norm_sq
    return x


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(dim=-1, keepdim=True)


def _gradients(objective: Tensor, leaves: MetaParams, *, may_be_unused: Collection[str] = ()) -> MetaParams:
    """The gradient of the sum of `objective` in each tensor of `leaves`; tasks are independent, so it is per task.

    Zero for a tensor of `may_be_unused` without effect, such as the penalties of a loss whose gradients count as
    constants; RuntimeError for any other.
    """
    keys = [key for group in leaves for key in group]
    gradients = torch.autograd.grad(objective.sum(), tensors(leaves), allow_unused=True)
    if missing := [
        key for key, value in zip(keys, gradients, strict=True) if value is None and key not in may_be_unused
    ]:
        raise RuntimeError(f"{', '.join(missing)}: learned, but without effect on the objective")
    filled = (
        torch.zeros_like(leaf) if value is None else value
        for leaf, value in zip(tensors(leaves), gradients, strict=True)
    )
    return MetaParams(*({key: next(filled) for key in group} for group in leaves))


def _all_points(batch: TaskBatch) -> Points:
    """The support points and the query points of each task, in this order."""
    return Points(*(torch.cat(pair, dim=-2) for pair in zip(batch.support, batch.query, strict=True)))


def _minibatches(batch: TaskBatch, steps: int) -> list[Points]:
    """The points of each inner step of Reptile: K at a time, cyclically, of all points of the task."""
    points, size = _all_points(batch), batch.support.x.shape[-2]
    indices = torch.arange(steps * size, device=points.x.device) % points.x.shape[-2]
    return [Points(*(value.index_select(-2, rows) for value in points)) for rows in torch.split(indices, size)]
