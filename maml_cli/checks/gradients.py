"""Self-checks of the gradients on the user's machine, above all that second order is second order.

The worked examples; then the configured learner, smooth and in float64, against finite differences and against an
independent implementation with torch.func.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch

from maml_cli.checks import torch_func
from maml_cli.checks.finite_differences import Derivative, derivative
from maml_cli.checks.worked_examples import TOLERANCE, Case, worked_examples
from maml_cli.config import Config, override
from maml_cli.core import (
    MetaParams,
    Params,
    Points,
    TaskBatch,
    expand_to_tasks,
    lookup,
    num_tasks,
    relative_distance,
    tensors,
)
from maml_cli.engines import adjoint_meta_gradient, choose_engine, make_engine
from maml_cli.errors import ConfigError, FileError
from maml_cli.experiment import Experiment, build_experiment
from maml_cli.messages import print_message
from maml_cli.tasks import make_generator
from maml_cli.training import init_state

NUM_TASKS = 5
"""Tasks in the batch of a check."""
AFTER_ANNEALING = 10**9
"""An outer step after the end of all annealing."""
LARGEST_TOLERANCE = 1e-6
"""The largest tolerance of finite differences, relative to derivatives larger than 1."""


def run_checks(config: Config, *, on_check: Callable[[int], None] = lambda done: None) -> list[Case]:
    """The worked examples and the checks of the learner that `config` describes; `on_check` gets the number done."""
    cases = []
    for case in itertools.chain(worked_examples(), check_learner(smooth(config))):
        cases.append(case)
        on_check(len(cases))
    return cases


def check_learner(config: Config) -> Iterator[Case]:
    """The meta-gradient of `config`, which must be smooth, at its initial parameters on a few of its tasks."""
    table = "checks.gradients.META_GRADIENT_CHECKS"
    check = lookup(META_GRADIENT_CHECKS, config.outer.meta_gradient, "outer.meta_gradient", table)
    yield from check(config)
    experiment, meta_params, batch = initial_state(config)
    if config.outer.multi_step_loss_until or config.inner.first_order_until:
        annealed = experiment.algorithm.meta_gradient(meta_params, batch, 0)[1]
        expected = torch_func.torch_func_gradient(config, experiment, meta_params, batch, 0)
        yield Case("network: first outer step, away from torch.func", 0.0, _distance(annealed, expected))
    yield Case("network: change in a task without the others", 0.0, _change_alone(experiment, meta_params, batch))
    expected = experiment.algorithm.meta_gradient(meta_params, batch, AFTER_ANNEALING)[1]
    adjoint = adjoint_meta_gradient(config, experiment)(meta_params, batch, AFTER_ANNEALING)[1]
    yield Case("network: engine eager, distance to reference", 0.0, _distance(adjoint, expected))
    name = choose_engine(config, torch.device("cpu")).name
    if name != "eager":
        try:
            distance = _engine_distance(name, config)
        except (ConfigError, FileError) as error:  # a training falls back to eager as well
            if config.run.engine != "auto":
                raise
            print_message(f"{error}")
        else:
            yield Case(f"network: engine {name}, distance to reference", 0.0, distance)


def smooth(config: Config) -> Config:
    """`config` in float64 on the CPU, without the kinks at which finite differences are meaningless."""
    changes = ["run.dtype=float64", "run.device=cpu"]
    if config.model.activation == "relu":
        changes.append("model.activation=tanh")
    if config.inner.loss == "l1":
        changes.append("inner.loss=mse")
    if config.inner.order == "implicit":
        # Small enough for a dense Hessian, convex, and solved to convergence.
        changes += [
            f"model.hidden={[min(width, 8) for width in config.model.hidden]}",
            "inner.cg_steps=500",
            "run.engine=auto",
        ]
        changes.append(f"inner.proximal={max(config.inner.proximal, 10)}")
    return override(config, changes, label="check")


def initial_state(config: Config) -> tuple[Experiment, MetaParams, TaskBatch]:
    """The learner, its initial meta-parameters, and a few tasks."""
    experiment = build_experiment(override(config, [f"outer.tasks_per_step={NUM_TASKS}"], label="check"))
    return (
        experiment,
        experiment.init_meta_params([config.run.seed]),
        experiment.sample([make_generator(config.run.seed, "check")], runs=[0]),
    )


def check_derivatives(
    experiment: Experiment, meta_params: MetaParams, batch: TaskBatch, groups: Sequence[str]
) -> Iterator[Case]:
    """The meta-gradient along a random direction, against finite differences of the mean query loss.

    `groups` are fields of MetaParams. The tolerance is ten times the estimated error of the finite difference, and at
    most `LARGEST_TOLERANCE`.
    """
    gradients = experiment.algorithm.meta_gradient(meta_params, batch, AFTER_ANNEALING)[1]
    for group in groups:
        gradient = getattr(gradients, group)
        direction = random_direction(gradient)
        expected = finite_difference(experiment, meta_params, batch, direction, group=group)
        scale = max(1.0, abs(expected.value))
        tolerance = min(10 * expected.error + TOLERANCE * scale, LARGEST_TOLERANCE * scale)
        kinds = [kind for kind, keys in experiment.learned_keys.items() if keys]
        label = "params" if group == "params" else "alpha" if kinds == ["alpha"] else "rule"
        obtained = directional_derivative(gradient, direction)
        yield Case(f"network: gradient of {label}, finite differences", expected.value, obtained, tolerance)


def finite_difference(
    experiment: Experiment, meta_params: MetaParams, batch: TaskBatch, direction: Params, *, group: str
) -> Derivative:
    """The derivative of the mean query loss along `direction`, in the parameters of `group`, a field of MetaParams."""
    start: Params = getattr(meta_params, group)

    def mean_query_loss(distance: float) -> float:
        shifted = start | {key: start[key] + distance * value for key, value in direction.items()}
        losses = experiment.algorithm.meta_gradient(meta_params._replace(**{group: shifted}), batch, AFTER_ANNEALING)[0]
        return losses.mean().item()

    return derivative(mean_query_loss)


def random_direction(per_task_gradient: Params) -> Params:
    """A fixed random direction of unit length in the parameters that have gradients (R, B, ...): (R, ...)."""
    stream = make_generator(0, "direction")
    values = {
        key: torch.randn(value[:, 0].shape, generator=stream, dtype=torch.float64)
        for key, value in per_task_gradient.items()
    }
    length = torch.stack([value.square().sum() for value in values.values()]).sum().sqrt()
    return {key: value / length for key, value in values.items()}


def directional_derivative(per_task_gradient: Params, direction: Params) -> float:
    """The inner product of the mean gradient over tasks with `direction`."""
    return sum((per_task_gradient[key].mean(dim=1) * value).sum().item() for key, value in direction.items())


def _check_orders(config: Config) -> Iterator[Case]:
    """Both orders, with alpha learned; the two must differ by as much as they do in the independent implementation."""
    actual, expected = {}, {}
    for order in ("second", "first"):
        changes = [f"inner.order={order}", "inner.alpha.learned=true", "inner.first_order_until=0"]
        changed = override(config, changes, label="check")
        experiment, meta_params, batch = initial_state(changed)
        actual[order] = experiment.algorithm.meta_gradient(meta_params, batch, AFTER_ANNEALING)[1]
        expected[order] = torch_func.torch_func_gradient(changed, experiment, meta_params, batch, AFTER_ANNEALING)
        if order == "second":
            yield from check_derivatives(experiment, meta_params, batch, ("params", "rule_params"))
    for order, gradient in actual.items():
        yield Case(f"network: {order} order, distance to torch.func", 0.0, _distance(gradient, expected[order]))
    # Equal gradients would mean that both are first order.
    apart, expected_apart = (_distance(both["first"], both["second"]) for both in (actual, expected))
    yield Case("network: distance of first to second order", expected_apart, apart)


def _check_closed_form(config: Config) -> Iterator[Case]:
    """Without gradient steps there is one order."""
    yield from check_derivatives(*initial_state(config), groups=("params", "rule_params"))
    yield from _check_distance(config)


def _check_joint(config: Config) -> Iterator[Case]:
    yield from check_derivatives(*initial_state(config), groups=("params",))
    yield from _check_distance(config)


def _check_distance(config: Config) -> Iterator[Case]:
    """Only against torch.func: Reptile's direction is no gradient, and the minimum of implicit MAML is approximate."""
    experiment, meta_params, batch = initial_state(config)
    actual = experiment.algorithm.meta_gradient(meta_params, batch, AFTER_ANNEALING)[1]
    expected = torch_func.torch_func_gradient(config, experiment, meta_params, batch, AFTER_ANNEALING)
    yield Case("network: meta-gradient, distance to torch.func", 0.0, _distance(actual, expected))


def _check_query(config: Config) -> Iterator[Case]:
    if config.inner.is_closed_form:
        return _check_closed_form(config)
    return lookup(ORDER_CHECKS, config.inner.order, "inner.order", "checks.gradients.ORDER_CHECKS")(config)


Check = Callable[[Config], Iterator[Case]]

ORDER_CHECKS: dict[str, Check] = {"second": _check_orders, "first": _check_orders, "implicit": _check_distance}
"""Values of `inner.order`."""

META_GRADIENT_CHECKS: dict[str, Check] = {"query": _check_query, "reptile": _check_distance, "joint": _check_joint}
"""Values of `outer.meta_gradient`."""


def _engine_distance(name: str, config: Config) -> float:
    """The relative distance of an engine's mean gradient of the first outer step from that of the reference."""
    small = override(config, [f"outer.tasks_per_step={NUM_TASKS}"], label="check")
    experiment = build_experiment(small)
    actual, expected = (
        make_engine(engine, small, experiment)(init_state(small, experiment), 1).gradients
        for engine in (name, "reference")
    )
    return _distance(actual, expected)


def _distance(actual: MetaParams, expected: MetaParams) -> float:
    return relative_distance(tensors(actual), tensors(expected))


def _change_alone(experiment: Experiment, meta_params: MetaParams, batch: TaskBatch) -> float:
    """The largest change in the adapted parameters of the last task when it is adapted without the other tasks."""

    def adapt(support: Points) -> Params:
        *_, adapted = experiment.algorithm.unroll(expand_to_tasks(meta_params, num_tasks(support)), support, 1)
        return adapted

    together, alone = adapt(batch.support), adapt(Points(*(values[:, -1:] for values in batch.support)))
    return max((together[key][:, -1:] - value).abs().max().item() for key, value in alone.items())
