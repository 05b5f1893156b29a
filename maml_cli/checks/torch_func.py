"""An independent implementation of every learner, which the project's own is held against: torch.func, task by task.

It shares the network, the loss and the names of parameters and of what the rule holds with the inner loop, but neither
its steps nor how they are differentiated. Plain rather than fast: the Hessian of an implicit gradient is built whole.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from maml_cli.config import Config
from maml_cli.core import MetaParams, Params, Points, TaskBatch
from maml_cli.experiment import Experiment

Loss = Callable[[Params, Points], Tensor]


class TaskLearner(NamedTuple):
    """A learner of one task, without the axes of runs and tasks."""

    config: Config
    loss: Loss
    first_order: bool

    @property
    def adapts(self) -> Callable[[str], bool]:
        """Whether the parameter of that name adapts."""
        subset = self.config.inner.adapt
        return {
            "all": lambda key: True,
            "head": lambda key: key.startswith("head"),
            "body": lambda key: key.startswith("hidden"),
            "context": lambda key: key == "context",
        }[subset]

    def start(self, params: Params) -> Params:
        """What a task starts from: the parameters, and a context of zeros."""
        size = self.config.model.num_context
        return params | {"context": params["head.b"].new_zeros(1, size)} if size else params

    def held_loss(self, params: Params, start: Params, points: Points) -> Tensor:
        """The inner loss: with the proximal term, if there is one."""
        ways = [((params[key] - start[key]) ** 2).sum() for key in params if self.adapts(key)]
        return self.loss(params, points) + self.config.inner.proximal / 2 * sum(ways)

    def path(self, meta: MetaParams, points: list[Points]) -> list[Params]:
        """The parameters after 0, 1, ... inner steps, a step for each of `points`."""
        start = self.start(meta.params)
        path, squares = [start], {key: torch.zeros_like(value) for key, value in start.items()}
        for step, split in enumerate(points):
            slopes: Params = grad(self.held_loss)(path[-1], start, split)
            moved = {}
            for key in filter(self.adapts, start):
                slope = slopes[key].detach() if self.first_order else slopes[key]
                moved[key] = path[-1][key] - self.update(meta.rule_params, key, slope, step, squares)
            path.append(path[-1] | moved)
        return path

    def update(self, rule: Params, key: str, slope: Tensor, step: int, squares: Params) -> Tensor:
        """What is subtracted from a parameter; `squares` has the sums that Adam needs, and is changed."""
        inner = self.config.inner
        if inner.curvature == "kronecker":
            place = step if inner.curvature_per_step else 0
            left = rule[f"{key}.in"][place] if key.endswith(".w") else torch.ones(1, 1, dtype=slope.dtype)
            slope = torch.einsum("ij,jk,kl->il", left, slope, rule[f"{key}.out"][place])
        if inner.optimizer == "adam":
            squares[key] = 0.999 * squares[key] + 0.001 * slope**2
            slope = slope / torch.sqrt(squares[key] / (1 - 0.999 ** (step + 1)) + 1e-16)
        layer = "context" if key == "context" else key.split(".")[0]
        name = {"scalar": "alpha", "layer": layer, "tensor": key, "parameter": key}[inner.alpha.per]
        alpha = rule[name][step if inner.alpha.per_step else 0]
        return (torch.exp(alpha) if inner.alpha.sign == "positive" else alpha) * slope

    def query_gradient(self, meta: MetaParams, support: Points, query: Points, weights: list[float]) -> MetaParams:
        """Of the weighted query losses along the path."""

        def objective(meta: MetaParams) -> Tensor:
            path = self.path(meta, [support] * self.config.inner.steps)
            return torch.stack([w * self.loss(p, query) for w, p in zip(weights, path, strict=True)]).sum()

        return grad(objective)(meta)  # type: ignore[no-any-return]

    def implicit_gradient(self, meta: MetaParams, support: Points, query: Points) -> MetaParams:
        """By the implicit function theorem: the minimum moves by -(d slope / d phi)^-1 d slope / d theta."""
        *_, last = self.path(meta, [support] * self.config.inner.steps)
        phi = {key: value.detach() for key, value in last.items() if self.adapts(key)}

        def slope(phi: Params, params: Params) -> Tensor:
            start = self.start(params)
            slopes = grad(lambda moving: self.held_loss(start | moving, start, support))(phi)
            return torch.cat([value.flatten() for value in slopes.values()])

        def query_loss(phi: Params, params: Params) -> Tensor:
            return self.loss(self.start(params) | phi, query)

        through, direct = grad(query_loss, argnums=(0, 1))(phi, meta.params)
        vector = torch.cat([value.flatten() for value in through.values()])
        rows, columns = jacrev(slope, argnums=(0, 1))(phi, meta.params)
        system = torch.cat([value.flatten(1) for value in rows.values()], dim=1)
        pull = torch.linalg.solve(system.mT, vector)
        return MetaParams({key: direct[key] - torch.tensordot(pull, columns[key], 1) for key in meta.params}, {})


def torch_func_gradient(
    config: Config, experiment: Experiment, meta: MetaParams, batch: TaskBatch, step: int
) -> MetaParams:
    """The per-task gradients (1, B, ...) of `config` at outer step `step`, for a Meta of one run."""
    inner, outer = config.inner, config.outer
    first_order = inner.order == "first" or step < inner.first_order_until
    learner = TaskLearner(config, lambda params, points: experiment.loss(params, points), first_order)
    share = max(0.0, 1 - step / outer.multi_step_loss_until) / inner.steps if outer.multi_step_loss_until else 0.0
    weights = [0.0, *[share] * (inner.steps - 1), 1 - share * (inner.steps - 1)]

    def one_task(support: Points, query: Points, meta: MetaParams) -> MetaParams:
        everything = Points(*(torch.cat(parts) for parts in zip(support, query, strict=True)))
        if outer.meta_gradient == "joint":
            return MetaParams(grad(learner.loss)(meta.params, everything), {})
        if outer.meta_gradient == "reptile":
            size, count = len(support.x), len(everything.x)
            chosen = [[(s * size + k) % count for k in range(size)] for s in range(inner.steps)]
            *_, last = learner.path(meta, [Points(*(part[rows] for part in everything)) for rows in chosen])
            return MetaParams({key: value - last[key] for key, value in meta.params.items()}, {})
        if inner.order == "implicit":
            return learner.implicit_gradient(meta, support, query)
        return learner.query_gradient(meta, support, query, weights)

    one_run = MetaParams(*({key: value[0] for key, value in part.items()} for part in meta))
    support, query = (Points(*(part[0] for part in split)) for split in (batch.support, batch.query))
    found = vmap(lambda support, query: tuple(one_task(support, query, one_run)))(support, query)
    learned = {key for keys in experiment.learned_keys.values() for key in keys}
    return MetaParams(
        {key: value.unsqueeze(0) for key, value in found[0].items()},
        {key: value.unsqueeze(0) for key, value in found[1].items() if key in learned},
    )
