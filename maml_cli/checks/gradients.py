"""Self-checks that prove the gradients on the user's machine: is it really second order?

The worked examples, then the configured learner, smooth and in float64, against finite differences and against an
independent implementation with torch.func.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from maml_cli.checks import torch_func
from maml_cli.checks.worked_examples import Case, worked_examples
from maml_cli.config import Config, override
from maml_cli.core import MetaParams, Params, Points, TaskBatch, expand_to_tasks, tensors
from maml_cli.engines import adjoint_meta_gradient, choose_engine, make_engine
from maml_cli.experiment import Experiment, build_experiment
from maml_cli.tasks import make_generator
from maml_cli.training import init_state

NUM_TASKS = 5
WIDTHS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
LATE = 10**9  # an outer step at which nothing is annealed any more


def run_checks(config: Config) -> list[Case]:
    """All checks of the project's arithmetic, the second half on the learner that `config` describes."""
    smooth = _smooth(config)
    return [*worked_examples(), *check_learner(smooth)]


def check_learner(config: Config) -> Iterator[Case]:
    """The meta-gradient of `config`, which must be smooth, at its initial parameters on a few of its tasks."""
    kind = config.outer.meta_gradient if config.inner.order != "implicit" else "implicit"
    yield from {"query": _check_orders, "joint": _check_joint}.get(kind, _check_distance)(config)
    experiment, meta, batch = _at_start(config)
    if config.outer.multi_step_loss_until or config.inner.first_order_until:
        annealed = experiment.algorithm.meta_gradient(meta, batch, 0)[1]
        distance = _relative_distance(annealed, torch_func.torch_func_gradient(config, experiment, meta, batch, 0))
        yield Case("network: first outer step, away from torch.func", 0.0, distance)
    yield Case("network: change in a task without the others", 0.0, _alone(experiment, meta, batch))
    expected = experiment.algorithm.meta_gradient(meta, batch, LATE)[1]
    written = adjoint_meta_gradient(config, experiment)(meta, batch, LATE)[1]
    yield Case("network: engine eager, distance to reference", 0.0, _relative_distance(written, expected))
    name = choose_engine(config, torch.device("cpu")).name
    if name != "eager":
        yield Case(f"network: engine {name}, distance to reference", 0.0, _distance_of_engine(name, config))


def _distance_of_engine(name: str, config: Config) -> float:
    """How far the mean gradient of the first outer step is from that of the reference."""
    few = override(config, [f"outer.tasks_per_step={NUM_TASKS}"], label="check")
    experiment = build_experiment(few)
    found, expected = (
        make_engine(each, few, experiment)(init_state(few, experiment), 1).gradients for each in (name, "reference")
    )
    return _relative_distance(found, expected)


def _check_orders(config: Config) -> Iterator[Case]:
    """Both orders, with alpha learned; the two must differ by as much as they do in the independent implementation."""
    found, expected = {}, {}
    for order in ("second", "first"):
        changes = [f"inner.order={order}", "inner.alpha.learned=true", "inner.first_order_until=0"]
        changed = override(config, changes, label="check")
        experiment, meta, batch = _at_start(changed)
        found[order] = experiment.algorithm.meta_gradient(meta, batch, LATE)[1]
        expected[order] = torch_func.torch_func_gradient(changed, experiment, meta, batch, LATE)
        if order == "second":
            yield from _check_slopes(experiment, meta, batch, ("params", "rule_params"))
    for order, gradient in found.items():
        distance = _relative_distance(gradient, expected[order])
        yield Case(f"network: {order} order, distance to torch.func", 0.0, distance)
    # Equal gradients would mean that both are first order.
    apart, as_expected = (_relative_distance(both["first"], both["second"]) for both in (found, expected))
    yield Case("network: distance of first to second order", as_expected, apart)


def _check_joint(config: Config) -> Iterator[Case]:
    yield from _check_slopes(*_at_start(config), parts=("params",))
    yield from _check_distance(config)


def _check_distance(config: Config) -> Iterator[Case]:
    """Reptile's is the gradient of no function, and the minimum of an implicit one is reached but nearly."""
    experiment, meta, batch = _at_start(config)
    found = experiment.algorithm.meta_gradient(meta, batch, LATE)[1]
    distance = _relative_distance(found, torch_func.torch_func_gradient(config, experiment, meta, batch, LATE))
    yield Case("network: meta-gradient, distance to torch.func", 0.0, distance)


def _check_slopes(experiment: Experiment, meta: MetaParams, batch: TaskBatch, parts: Sequence[str]) -> Iterator[Case]:
    gradient = experiment.algorithm.meta_gradient(meta, batch, LATE)[1]
    for part in parts:
        direction = _direction(getattr(gradient, part))
        expected = _finite_difference(experiment, meta, batch, direction, part=part)
        obtained = _along(getattr(gradient, part), direction)
        tolerance = 1e-6 * max(1.0, abs(expected))
        named = "params" if part == "params" else "alpha" if not experiment.learned_keys["curvature"] else "rule"
        yield Case(f"network: slope in {named}, finite differences", expected, obtained, tolerance)


def _at_start(config: Config) -> tuple[Experiment, MetaParams, TaskBatch]:
    """The learner, its initial Meta, and a few tasks."""
    experiment = build_experiment(override(config, [f"outer.tasks_per_step={NUM_TASKS}"], label="check"))
    return (
        experiment,
        experiment.init_meta_params([config.run.seed]),
        experiment.sample([make_generator(config.run.seed, "check")]),
    )


def _smooth(config: Config) -> Config:
    """`config` in float64 on the CPU, without the kinks at which finite differences are meaningless."""
    changes = ["run.dtype=float64", "run.device=cpu"]
    if config.model.activation == "relu":
        changes.append("model.activation=tanh")
    if config.inner.loss == "l1":
        changes.append("inner.loss=mse")
    if config.inner.order == "implicit":
        # Small enough for its whole Hessian, convex, and solved to the end.
        changes += [f"model.hidden={[min(width, 8) for width in config.model.hidden]}", "inner.cg_steps=500"]
        changes.append(f"inner.proximal={max(config.inner.proximal, 10)}")
    return override(config, changes, label="check")


def _mean_query_loss(experiment: Experiment, meta: MetaParams, batch: TaskBatch) -> Tensor:
    return experiment.algorithm.meta_gradient(meta, batch, LATE)[0].mean()


def _finite_difference(
    experiment: Experiment, meta: MetaParams, batch: TaskBatch, direction: Params, *, part: str
) -> float:
    """The slope of the mean query loss along `direction`, from four points: the error is of order width^4.

    Of several widths the one that agrees best with the next: too wide a step leaves what is straight, too narrow a one
    is lost in rounding, and which is which depends on the learner.
    """

    def loss_at(distance: float) -> float:
        start: Params = getattr(meta, part)
        moved = {key: start[key] + distance * value for key, value in direction.items()}
        return _mean_query_loss(experiment, meta._replace(**{part: start | moved}), batch).item()

    found = []
    for width in WIDTHS:
        near, far = (loss_at(h) - loss_at(-h) for h in (width, 2 * width))
        found.append((8 * near - far) / (12 * width))
    return min(pairwise(found), key=lambda pair: abs(pair[0] - pair[1]))[0]


def _direction(per_task_gradient: Params) -> Params:
    """A fixed random direction of unit length in what has gradients."""
    stream = make_generator(0, "direction")
    values = {
        key: torch.randn(value[:, 0].shape, generator=stream, dtype=torch.float64)
        for key, value in per_task_gradient.items()
    }
    length = torch.stack([value.square().sum() for value in values.values()]).sum().sqrt()
    return {key: value / length for key, value in values.items()}


def _along(per_task_gradient: Params, direction: Params) -> float:
    return sum((per_task_gradient[key].mean(dim=1) * value).sum().item() for key, value in direction.items())


def _relative_distance(one: MetaParams, other: MetaParams) -> float:
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    distance = torch.stack([(a - b).square().sum() for a, b in pairs]).sum().sqrt()
    return (distance / torch.stack([b.square().sum() for _, b in pairs]).sum().sqrt()).item()


def _alone(experiment: Experiment, meta: MetaParams, batch: TaskBatch) -> float:
    """How far the adapted parameters of the last task are from those it gets when it is the only one."""

    def adapted(support: Points) -> Params:
        *_, last = experiment.algorithm.unroll(expand_to_tasks(meta, support.x.shape[1]), support, 1)
        return last

    together, single = adapted(batch.support), adapted(Points(*(part[:, -1:] for part in batch.support)))
    return max((together[key][:, -1:] - value).abs().max().item() for key, value in single.items())
