"""Self-checks that prove the gradients on the user's machine: is it really second order?

The worked examples, then the configured learner, smooth and in float64, against finite differences and against an
independent implementation: one task at a time, with torch.func. That shares the network, the loss and the names of
parameters and alphas with the inner loop, but neither its steps nor how they are differentiated.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap

from maml_cli.algorithms import Meta, adapted_keys, alpha_groups, per_task, tensors
from maml_cli.config import Config
from maml_cli.examples import Case, worked_examples
from maml_cli.experiment import Experiment, build
from maml_cli.loading import override
from maml_cli.model import Params
from maml_cli.tasks import Split, TaskBatch, generator

NUM_TASKS = 5
ALL_SECOND_ORDER = 10**9  # an outer step at which nothing is annealed any more


def check(config: Config) -> list[Case]:
    """All checks of the project's arithmetic, the second half on the learner that `config` describes."""
    smooth = _smooth(config)
    return [*worked_examples(), *check_learner(smooth)]


def check_learner(config: Config) -> Iterator[Case]:
    """The meta-gradient of `config`, which must be smooth, at its initial parameters on a few of its tasks."""
    second = build(override(config, ["inner.order=second", "inner.alpha.learned=true"], label="check"))
    first = build(override(config, ["inner.order=first", "inner.alpha.learned=true"], label="check"))
    meta = second.init_meta([config.run.seed])
    batch = second.family.sample(
        [generator(config.run.seed, "check")],
        num_tasks=NUM_TASKS,
        num_support=config.tasks.num_support,
        num_query=config.tasks.num_query,
        dtype=second.dtype,
    )
    gradients = {
        "second": second.algorithm.meta_grad(meta, batch, ALL_SECOND_ORDER)[1],
        "first": first.algorithm.meta_grad(meta, batch, ALL_SECOND_ORDER)[1],
    }
    references = {order: _reference(config, second, meta, batch, order=order) for order in gradients}

    for part in ("params", "rule"):
        named = "params" if part == "params" else "alpha"
        expected = _finite_difference(second, meta, batch, part=part)
        obtained = _along(getattr(gradients["second"], part), _direction(meta, part))
        tolerance = 1e-6 * max(1.0, abs(expected))
        yield Case(f"network: slope in {named}, finite differences", expected, obtained, tolerance)
    for order, gradient in gradients.items():
        distance = _relative_distance(gradient, references[order])
        yield Case(f"network: {order} order, distance to torch.func", 0.0, distance)
    # The two orders must differ by as much as they do in the reference: equal gradients would mean first order.
    expected = _relative_distance(references["first"], references["second"])
    obtained = _relative_distance(gradients["first"], gradients["second"])
    yield Case("network: distance of first to second order", expected, obtained)
    yield Case("network: change in a task without the others", 0.0, _alone(second, meta, batch))


def _smooth(config: Config) -> Config:
    """`config` in float64 on the CPU, without the kinks at which finite differences are meaningless."""
    changes = ["run.dtype=float64", "run.device=cpu"]
    if config.model.activation == "relu":
        changes.append("model.activation=tanh")
    if config.inner.loss == "l1":
        changes.append("inner.loss=mse")
    return override(config, changes, label="check")


def _mean_query_loss(experiment: Experiment, meta: Meta, batch: TaskBatch) -> Tensor:
    return experiment.algorithm.meta_grad(meta, batch, ALL_SECOND_ORDER)[0].mean()


def _finite_difference(
    experiment: Experiment, meta: Meta, batch: TaskBatch, *, part: str, width: float = 1e-4
) -> float:
    """The slope of the mean query loss along `_direction`, from four points: the error is of order width^4."""
    direction = _direction(meta, part)

    def loss_at(distance: float) -> float:
        moved = {key: value + distance * direction[key] for key, value in getattr(meta, part).items()}
        return _mean_query_loss(experiment, meta._replace(**{part: moved}), batch).item()

    near, far = (loss_at(h) - loss_at(-h) for h in (width, 2 * width))
    return (8 * near - far) / (12 * width)


def _direction(meta: Meta, part: str) -> Params:
    """A fixed random direction of unit length in the parameters or in the rule."""
    stream = generator(0, "direction")
    values = {
        key: torch.randn(value.shape, generator=stream, dtype=torch.float64)
        for key, value in getattr(meta, part).items()
    }
    length = torch.stack([value.square().sum() for value in values.values()]).sum().sqrt()
    return {key: value / length for key, value in values.items()}


def _along(per_task_gradient: Params, direction: Params) -> float:
    return sum((per_task_gradient[key].mean(dim=1) * value).sum().item() for key, value in direction.items())


def _relative_distance(one: Meta, other: Meta) -> float:
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    distance = torch.stack([(a - b).square().sum() for a, b in pairs]).sum().sqrt()
    return (distance / torch.stack([b.square().sum() for _, b in pairs]).sum().sqrt()).item()


def _alone(experiment: Experiment, meta: Meta, batch: TaskBatch) -> float:
    """How far the adapted parameters of the last task are from those it gets when it is the only one."""

    def adapted(support: Split) -> Params:
        *_, last = experiment.algorithm.unroll(per_task(meta, support.x.shape[1]), support, 1)
        return last

    together, single = adapted(batch.support), adapted(Split(*(part[:, -1:] for part in batch.support)))
    return max((together[key][:, -1:] - value).abs().max().item() for key, value in single.items())


def _reference(config: Config, experiment: Experiment, meta: Meta, batch: TaskBatch, *, order: str) -> Meta:
    """Per-task meta-gradients by torch.func: vmap over tasks of grad of a plain loop over inner steps."""
    keys = adapted_keys(meta.params, subset=config.inner.adapt)
    groups = alpha_groups(keys, per=config.inner.alpha.per)

    def loss(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return experiment.loss(params, Split(x, y))

    def query_loss(parts: dict[str, Params], x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        params = parts["params"]
        for step in range(config.inner.steps):
            slopes = _cut(grad(loss)(params, x, y), order)
            alphas = {key: parts["rule"][groups[key]][step if config.inner.alpha.per_step else 0] for key in keys}
            params = params | {key: params[key] - alphas[key] * slopes[key] for key in keys}
        return loss(params, query_x, query_y)

    one_run: dict[str, Any] = {name: {k: v[0] for k, v in part.items()} for name, part in meta._asdict().items()}
    points = [*(part[0] for part in batch.support), *(part[0] for part in batch.query)]
    found: dict[str, Params] = vmap(grad(query_loss), in_dims=(None, 0, 0, 0, 0))(one_run, *points)
    return Meta(*({key: value.unsqueeze(0) for key, value in found[name].items()} for name in Meta._fields))


def _cut(gradients: Params, order: str) -> Params:
    return {key: value.detach() if order == "first" else value for key, value in gradients.items()}
