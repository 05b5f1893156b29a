"""Worked examples: small problems solved by hand, computed through the project's own inner and outer loop.

All in float64, with one run and one-by-one parameters: (1, B, 1, 1).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core import (
    InnerLoop,
    MetaParams,
    Params,
    Points,
    TaskBatch,
    TaskLoss,
    absolute,
    expand_to_tasks,
    implicit_gradient,
    inner_loop,
    last_step_weights,
    mean_loss,
    query_gradient,
    update_rules,
)
from maml_cli.engines import TrainState, make_outer_optimizer, take_outer_step

TOLERANCE = 1e-9


class Case(NamedTuple):
    """A number as it should be and as it came out."""

    name: str
    expected: float
    obtained: float
    tolerance: float = TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether the two agree, to an absolute tolerance; a NaN never does."""
        return abs(self.obtained - self.expected) <= self.tolerance


def worked_examples() -> list[Case]:
    """Every number of the four examples."""
    return [*weight_as_a_function_of_x(), *sum_of_two_squares(), *derivatives_of_a_cubic(), *single_neuron()]


def weight_as_a_function_of_x() -> Iterator[Case]:
    """Prediction (w x)^2, target 2, L1 loss, alpha 0.1, w = x = 1: what dL/dx becomes as w learns from x.

    w1 = w (1 + 0.2 x^2), so L1 = 2 - (w x + 0.2 w x^3)^2 and dL1/dx = -2 * 1.2 * 1.6. After two steps the
    prediction 2.0736 has passed the target: the sign flips, and dL2/dx = 2 * 1.44 * 2.4, with
    w2 x = w (x + 0.4 x^3 + 0.04 x^5) and its slope 1 + 1.2 + 0.2.
    """
    loss = mean_loss(lambda params, x: (x @ params["w"]) ** 2, absolute)
    for first_order in (False, True):
        x, alpha = _scalar(1.0).requires_grad_(), _scalar(0.1).unsqueeze(0).requires_grad_()
        support = Points(x, _scalar(2.0))
        steps = list(_descend(loss, {"w": _scalar(1.0)}, alpha, support, steps=2, first_order=first_order))
        slopes = [_grad(loss(params, support), x) for params in steps]
        if first_order:
            yield Case("w(x): dL/dx after 1 step, first order", -2.88, slopes[1])
            continue
        yield Case("w(x): w after 1 step", 1.2, steps[1]["w"].item())
        yield Case("w(x): w after 2 steps", 1.44, steps[2]["w"].item())
        yield Case("w(x): dL/dx before adapting", -2.0, slopes[0])
        yield Case("w(x): dL/dx after 1 step", -3.84, slopes[1])
        yield Case("w(x): dL/dx after 2 steps", 6.912, slopes[2])
        yield Case("w(x): loss after 2 steps", 0.0736, loss(steps[2], support).item())
        yield Case("w(x): dL/dalpha after 1 step", -4.8, _grad(loss(steps[1], support), alpha))


def sum_of_two_squares() -> Iterator[Case]:
    """Prediction (a^2 + b^2) x, target (3^2 + 4^2) x, x = 0.1, loss 0.5 error^2, a = 2, b = 3, alpha 1, one step.

    d(a1)/d(a) = 1 - 6 x^2 a^2 - 2 x^2 b^2 + 2 x y and d(a1)/d(b) = -4 x^2 a b, and the same with a and b swapped.
    """
    loss = mean_loss(lambda p, x: (p["a"] ** 2 + p["b"] ** 2) * x, lambda error: 0.5 * error * error)
    start = {"a": _scalar(2.0).requires_grad_(), "b": _scalar(3.0).requires_grad_()}
    points = Points(_scalar(0.1), _scalar(2.5))
    *_, adapted = _descend(loss, start, _scalar(1.0).unsqueeze(0), points, steps=1)
    expected = {"a": (2.48, 1.08, -0.24), "b": (3.72, -0.24, 0.88)}
    for key, (value, *row) in expected.items():
        yield Case(f"a^2 + b^2: {key} after 1 step", value, adapted[key].item())
        for other, entry in zip("ab", row, strict=True):
            yield Case(f"a^2 + b^2: d {key}1 / d {other}0", entry, _grad(adapted[key], start[other]))
    # The derivative of (gradient . vector), with the query gradient as the vector: H v, and J v = v - H v.
    query_gradient = (-0.24855552, -0.37283328)
    way = sum(((start[key] - adapted[key]) * v for key, v in zip("ab", query_gradient, strict=True)), _scalar(0.0))
    for key, entry in zip("ab", (-0.0695955456, -0.1043933184), strict=True):
        yield Case(f"a^2 + b^2: Hessian times query gradient, {key}", entry, _grad(way, start[key]))
    gradients = {"second": (-0.1789599744, -0.2684399616), "first": (-0.24855552, -0.37283328)}
    for order, entries in gradients.items():
        losses, found, after = _outer_step(loss, {"a": 2.0, "b": 3.0}, points, points, alpha=1.0, lr=1.0, order=order)
        for key, entry in zip("ab", entries, strict=True):
            yield Case(f"a^2 + b^2: meta-gradient of {key}, {order} order", entry, found.params[key].item())
        if order == "second":
            yield Case("a^2 + b^2: loss after 1 step", 0.1255606272, losses.item())
            yield Case("a^2 + b^2: meta-gradient of alpha", -0.3877466112, found.rule_params["alpha"].item())
            yield Case("a^2 + b^2: a after an outer step", 2.1789599744, after["a"].item())
            yield Case("a^2 + b^2: b after an outer step", 3.2684399616, after["b"].item())


def derivatives_of_a_cubic() -> Iterator[Case]:
    """f(x) = 2 x^3 at x = -2: -16, and its derivatives 24, -24, 12 and 0.

    With alpha 1, the way that an inner step takes is the derivative of its loss; and as the step is
    differentiable itself, that way can be the loss of the next.
    """

    def derivative(loss: TaskLoss) -> TaskLoss:
        def way(params: Params, points: Points) -> Tensor:
            before, after = _descend(loss, params, _scalar(1.0).unsqueeze(0), points, steps=1)
            return (before["x"] - after["x"]).sum(dim=(-2, -1))

        return way

    loss: TaskLoss = lambda params, points: (2 * params["x"] ** 3).sum(dim=(-2, -1))  # noqa: E731
    nowhere = Points(_scalar(0.0), _scalar(0.0))
    for order, expected in enumerate([-16.0, 24.0, -24.0, 12.0, 0.0]):
        name = f"2 x^3: derivative {order}" if order else "2 x^3: value"
        yield Case(name, expected, loss({"x": _scalar(-2.0).requires_grad_()}, nowhere).item())
        loss = derivative(loss)


def single_neuron() -> Iterator[Case]:
    """f(x) = theta x from theta = 1, summed squared errors, alpha 0.1, outer rate 0.5 on the sum over two tasks.

    D1 adapts on (2, 4), (3, 1) and is judged on (1, 2); D2 on (5, 3), (6, 0) and on (4, 1). The adapted weight has
    slope 1 - 2 alpha sum(x^2) over the *support* points; the second-order meta-gradient is that slope times the
    query gradient 2 x (theta' x - y), the first-order one the query gradient alone.
    """
    loss: TaskLoss = lambda params, points: ((points.x @ params["theta"] - points.y) ** 2).sum(dim=(-2, -1))  # noqa: E731
    support = Points(_points([[2, 3], [5, 6]]), _points([[4, 1], [3, 0]]))
    query = Points(_points([[1], [4]]), _points([[2], [1]]))
    theta = torch.ones(1, 2, 1, 1, dtype=torch.float64, requires_grad=True)
    *_, adapted = _descend(loss, {"theta": theta}, _scalar(0.1).unsqueeze(0).expand(1, 2, 1, 1, 1), support, steps=1)
    slopes = torch.autograd.grad(adapted["theta"].sum(), theta)[0]
    for task, (weight, slope) in enumerate([(0.6, -1.6), (-8.2, -11.2)]):
        yield Case(f"neuron: adapted weight of D{task + 1}", weight, adapted["theta"][0, task].item())
        yield Case(f"neuron: its derivative, D{task + 1}", slope, slopes[0, task].item())
    expected = {"second": ((4.48, 3028.48), -1515.48), "first": ((-2.8, -270.4), 137.6)}
    for order, (gradients, after_step) in expected.items():
        # The outer loop takes the mean over the two tasks, hence twice the rate for the sum.
        _, found, after = _outer_step(loss, {"theta": 1.0}, support, query, alpha=0.1, lr=2 * 0.5, order=order)
        for task, gradient in enumerate(gradients):
            name = f"neuron: meta-gradient of D{task + 1}, {order} order"
            yield Case(name, gradient, found.params["theta"][0, task].item())
        yield Case(f"neuron: theta after outer step, {order} order", after_step, after["theta"].item())
        if order == "second":
            for task, gradient in enumerate([11.2, 24876.8]):
                yield Case(
                    f"neuron: meta-gradient of alpha, D{task + 1}",
                    gradient,
                    found.rule_params["alpha"][0, task].item(),
                )
    yield from _implicit_neuron(loss, support, query)


def _implicit_neuron(loss: TaskLoss, support: Points, query: Points) -> Iterator[Case]:
    """The same neuron with (theta' - theta)^2 in its inner loss, at the minimum and not after one step.

    The minimum is (2 sum(x y) + 2 theta) / (2 sum(x^2) + 2): 24 / 28 and 32 / 124; its derivative in theta is
    2 / 28 and 2 / 124, and the meta-gradient that times the query gradient 2 x (theta' x - y).
    """
    descent, meta = _inner_loop(loss, {"theta": 1.0}, alpha=0.01, proximal=2.0)
    adapt = descent.with_annealed_order(100)
    *_, optimum = adapt(expand_to_tasks(meta, 2), support, 0)
    meta_grad = implicit_gradient(adapt, loss, adapted=["theta"], proximal=2.0, cg_steps=1)
    _, found = meta_grad(meta, _batch(support, query), 0)
    for task, (weight, slope) in enumerate([(6 / 7, -8 / 49), (8 / 31, 4 / 961)]):
        yield Case(f"neuron: proximal minimum of D{task + 1}", weight, optimum["theta"][0, task].item())
        yield Case(f"neuron: implicit meta-gradient of D{task + 1}", slope, found.params["theta"][0, task].item())


def _descend(
    loss: TaskLoss, params: Params, alpha: Tensor, support: Points, *, steps: int, first_order: bool = False
) -> Iterator[Params]:
    update = update_rules.scale_by_alpha(dict.fromkeys(params, "alpha"))
    return inner_loop.unroll(
        loss,
        params,
        {"alpha": alpha},
        update,
        support,
        steps=steps,
        first_order=first_order,
    )


def _outer_step(
    loss: TaskLoss,
    start: dict[str, float],
    support: Points,
    query: Points,
    *,
    alpha: float,
    lr: float,
    order: str,
) -> tuple[Tensor, MetaParams, Params]:
    """Query losses, per-task gradients of parameters and alpha, and the parameters after an outer SGD step."""
    descent, meta = _inner_loop(loss, start, alpha=alpha)
    adapt = descent.with_annealed_order(1, first_order_until=1 if order == "first" else 0)
    meta_grad = query_gradient(adapt, loss, learned=["alpha"], weights=last_step_weights(1))
    batch = _batch(support, query)
    losses, gradients = meta_grad(meta, batch, 0)
    optimizers = {"params": make_outer_optimizer("sgd", list(meta.params.values()), lr)}
    state = TrainState(meta, optimizers, [], 0, torch.zeros(1), torch.zeros(1), torch.zeros(1))
    take_outer_step(state, batch, meta_grad)
    return losses, gradients, state.meta_params.params


def _inner_loop(
    loss: TaskLoss, start: dict[str, float], *, alpha: float, proximal: float = 0.0
) -> tuple[InnerLoop, MetaParams]:
    """Gradient descent with one alpha on all parameters, and what it starts from."""
    groups = dict.fromkeys(start, "alpha")
    params = {key: _scalar(value)[0] for key, value in start.items()}
    rule = update_rules.init_alphas(params, groups, value=alpha, per_parameter=False, num_alphas=1)
    return InnerLoop(loss, update_rules.scale_by_alpha(groups), list(start), proximal=proximal), MetaParams(
        params, rule
    )


def _batch(support: Points, query: Points) -> TaskBatch:
    return TaskBatch(support, query)


def _scalar(value: float) -> Tensor:
    return torch.full((1, 1, 1, 1), value, dtype=torch.float64)


def _points(rows: list[list[float]]) -> Tensor:
    """One row of numbers for each task: (1, B, K, 1)."""
    return torch.tensor(rows, dtype=torch.float64).reshape(1, len(rows), -1, 1)


def _grad(output: Tensor, wanted: Tensor) -> float:
    """The derivative, zero where `output` does not depend on `wanted` at all."""
    (gradient,) = torch.autograd.grad(output.sum(), wanted, retain_graph=True, allow_unused=True)
    return 0.0 if gradient is None else gradient.item()
