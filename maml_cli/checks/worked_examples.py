"""Worked examples: small problems solved by hand, computed through the project's own inner and outer loop.

Expected values are written as the algebra that gives them. All in float64, with one run and one-by-one parameters,
(1, B, 1, 1).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.checks.scalar_learners import derivative, make_inner_loop, outer_step, points_by_task, scalar, unroll
from maml_cli.core import Params, Points, TaskBatch, TaskLoss, absolute, expand_to_tasks, implicit_gradient, mean_loss

TOLERANCE = 1e-9


class Case(NamedTuple):
    """A number with its expected value.

    name: example and quantity.
    expected: derived by hand, or computed by an independent implementation.
    obtained: computed by the code under test.
    tolerance: absolute.
    """

    name: str
    expected: float
    obtained: float
    tolerance: float = TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether the numbers agree to the tolerance; a NaN never does."""
        return abs(self.obtained - self.expected) <= self.tolerance


def worked_examples() -> list[Case]:
    """Every number of the four examples."""
    return [*weight_as_a_function_of_x(), *sum_of_two_squares(), *derivatives_of_a_cubic(), *single_neuron()]


def weight_as_a_function_of_x() -> Iterator[Case]:
    """Prediction (w x)^2, target 2, L1 loss, alpha 0.1, w = x = 1: dL/dx, as the adapted w depends on x.

    w1 = w (1 + 0.2 x^2), so L1 = 2 - (w x + 0.2 w x^3)^2 and dL1/dx = -2 * 1.2 * 1.6. After two steps the
    prediction 2.0736 has passed the target: the sign flips, and dL2/dx = 2 * 1.44 * 2.4, with
    w2 x = w (x + 0.4 x^3 + 0.04 x^5) and its derivative 1 + 1.2 + 0.2.
    """
    loss = mean_loss(lambda params, x: (x @ params["w"]) ** 2, absolute)
    for first_order in (False, True):
        x, alpha = scalar(1.0).requires_grad_(), scalar(0.1).unsqueeze(0).requires_grad_()
        support = Points(x, scalar(2.0))
        steps = list(unroll(loss, {"w": scalar(1.0)}, alpha, support, steps=2, first_order=first_order))
        gradients = [derivative(loss(params, support), x) for params in steps]
        if first_order:
            yield Case("w(x): dL/dx after 1 step, first order", -2 * 1.2 * 1.2, gradients[1])
            continue
        yield Case("w(x): w after 1 step", 1 + 0.2, steps[1]["w"].item())
        yield Case("w(x): w after 2 steps", 1.2**2, steps[2]["w"].item())
        yield Case("w(x): dL/dx before adapting", -2.0, gradients[0])
        yield Case("w(x): dL/dx after 1 step", -2 * 1.2 * 1.6, gradients[1])
        yield Case("w(x): dL/dx after 2 steps", 2 * 1.44 * 2.4, gradients[2])
        yield Case("w(x): loss after 2 steps", 1.44**2 - 2, loss(steps[2], support).item())
        yield Case("w(x): dL/dalpha after 1 step", -2 * 1.2 * 2, derivative(loss(steps[1], support), alpha))


def sum_of_two_squares() -> Iterator[Case]:
    """Prediction (a^2 + b^2) x, target (3^2 + 4^2) x, x = 0.1, loss 0.5 error^2, a = 2, b = 3, alpha 1, one step.

    The error is -1.2, the gradient g = -1.2 * 2 x (a, b), and a1 = a - g_a. The Jacobian J = I - H of the step has
    d(a1)/d(a) = 1 - 6 x^2 a^2 - 2 x^2 b^2 + 2 x y and d(a1)/d(b) = -4 x^2 a b, and the same with a and b swapped.
    With v the query gradient at (a1, b1), here on the same point, the meta-gradient is v - H v, or v in first order,
    and that of alpha -g.v.
    """
    loss = mean_loss(lambda p, x: (p["a"] ** 2 + p["b"] ** 2) * x, lambda error: 0.5 * error * error)
    start = {"a": scalar(2.0).requires_grad_(), "b": scalar(3.0).requires_grad_()}
    points = Points(scalar(0.1), scalar(2.5))
    *_, adapted = unroll(loss, start, scalar(1.0).unsqueeze(0), points, steps=1)
    gradient = {"a": -1.2 * 0.2 * 2, "b": -1.2 * 0.2 * 3}
    stepped = {"a": 2 - gradient["a"], "b": 3 - gradient["b"]}
    squares = {("a", "a"): 1 - 0.06 * 4 - 0.02 * 9 + 0.5, ("b", "b"): 1 - 0.06 * 9 - 0.02 * 4 + 0.5}
    jacobian = squares | {("a", "b"): -0.04 * 2 * 3, ("b", "a"): -0.04 * 2 * 3}
    error = 0.1 * (stepped["a"] ** 2 + stepped["b"] ** 2) - 2.5
    vector = {key: error * 0.2 * value for key, value in stepped.items()}
    second = {key: sum(jacobian[key, column] * vector[column] for column in "ab") for key in "ab"}
    for key in "ab":
        yield Case(f"a^2 + b^2: {key} after 1 step", stepped[key], adapted[key].item())
        for column in "ab":
            obtained = derivative(adapted[key], start[column])
            yield Case(f"a^2 + b^2: d {key}1 / d {column}0", jacobian[key, column], obtained)
    # The derivative of g.v at constant v is H v.
    product = sum(((start[key] - adapted[key]) * value for key, value in vector.items()), scalar(0.0))
    for key in "ab":
        name = f"a^2 + b^2: Hessian times query gradient, {key}"
        yield Case(name, vector[key] - second[key], derivative(product, start[key]))
    for order, expected in {"second": second, "first": vector}.items():
        losses, gradients, after = outer_step(
            loss, {"a": 2.0, "b": 3.0}, TaskBatch(points, points), alpha=1.0, lr=1.0, order=order
        )
        for key in "ab":
            name = f"a^2 + b^2: meta-gradient of {key}, {order} order"
            yield Case(name, expected[key], gradients.params[key].item())
        if order == "second":
            alpha_gradient = -sum(gradient[key] * vector[key] for key in "ab")
            yield Case("a^2 + b^2: loss after 1 step", error**2 / 2, losses.item())
            yield Case("a^2 + b^2: meta-gradient of alpha", alpha_gradient, gradients.rule_params["alpha"].item())
            yield Case("a^2 + b^2: a after an outer step", 2 - second["a"], after["a"].item())
            yield Case("a^2 + b^2: b after an outer step", 3 - second["b"], after["b"].item())


def derivatives_of_a_cubic() -> Iterator[Case]:
    """f(x) = 2 x^3 at x = -2, and its derivatives 6 x^2, 12 x, 12 and 0.

    With alpha 1, x minus the adapted x is the derivative of the loss; and as the inner step is differentiable itself,
    that difference can be the loss of the next.
    """

    def differentiate(loss: TaskLoss) -> TaskLoss:
        def difference(params: Params, points: Points) -> Tensor:
            before, after = unroll(loss, params, scalar(1.0).unsqueeze(0), points, steps=1)
            return (before["x"] - after["x"]).sum(dim=(-2, -1))

        return difference

    loss: TaskLoss = lambda params, points: (2 * params["x"] ** 3).sum(dim=(-2, -1))  # noqa: E731
    unused = Points(scalar(0.0), scalar(0.0))
    for order, expected in enumerate([2 * (-2.0) ** 3, 6 * (-2.0) ** 2, 12 * -2.0, 12.0, 0.0]):
        name = f"2 x^3: derivative {order}" if order else "2 x^3: value"
        yield Case(name, expected, loss({"x": scalar(-2.0).requires_grad_()}, unused).item())
        loss = differentiate(loss)


def single_neuron() -> Iterator[Case]:
    """f(x) = theta x from theta = 1, summed squared errors, alpha 0.1, outer rate 0.5 on the sum over two tasks.

    D1 adapts on (2, 4), (3, 1) and is judged on (1, 2); D2 on (5, 3), (6, 0) and on (4, 1). The gradients at theta = 1
    are 2 (2 (-2) + 3 (2)) = 4 and 2 (5 (2) + 6 (6)) = 92. The adapted weight theta' has the derivative
    1 - 2 alpha sum(x^2) over the *support* points; the second-order meta-gradient is that derivative times the query
    gradient 2 x (theta' x - y), the first-order one the query gradient alone, and that of alpha the query gradient
    times minus the gradient.
    """
    loss: TaskLoss = lambda params, points: ((points.x @ params["theta"] - points.y) ** 2).sum(dim=(-2, -1))  # noqa: E731
    support = Points(points_by_task([[2, 3], [5, 6]]), points_by_task([[4, 1], [3, 0]]))
    batch = TaskBatch(support, Points(points_by_task([[1], [4]]), points_by_task([[2], [1]])))
    theta = torch.ones(1, 2, 1, 1, dtype=torch.float64, requires_grad=True)
    alpha = scalar(0.1).unsqueeze(0).expand(1, 2, 1, 1, 1)
    *_, adapted = unroll(loss, {"theta": theta}, alpha, batch.support, steps=1)
    derivatives = torch.autograd.grad(adapted["theta"].sum(), theta)[0]
    gradients = (4.0, 92.0)
    expected_weights, expected_derivatives = (1 - 0.1 * 4, 1 - 0.1 * 92), (1 - 0.2 * (4 + 9), 1 - 0.2 * (25 + 36))
    for task in range(2):
        yield Case(f"neuron: adapted weight of D{task + 1}", expected_weights[task], adapted["theta"][0, task].item())
        yield Case(f"neuron: its derivative, D{task + 1}", expected_derivatives[task], derivatives[0, task].item())
    first = [2 * x * (w * x - y) for w, (x, y) in zip(expected_weights, ((1, 2), (4, 1)), strict=True)]
    second = [d * gradient for d, gradient in zip(expected_derivatives, first, strict=True)]
    for order, expected in {"second": second, "first": first}.items():
        # The outer loop takes the mean over the two tasks, hence twice the rate for the sum.
        _, obtained, after = outer_step(loss, {"theta": 1.0}, batch, alpha=0.1, lr=2 * 0.5, order=order)
        for task in range(2):
            name = f"neuron: meta-gradient of D{task + 1}, {order} order"
            yield Case(name, expected[task], obtained.params["theta"][0, task].item())
        yield Case(f"neuron: theta after outer step, {order} order", 1 - 0.5 * sum(expected), after["theta"].item())
        if order == "second":
            for task, alpha_gradient in enumerate(obtained.rule_params["alpha"][0].flatten().tolist()):
                yield Case(
                    f"neuron: meta-gradient of alpha, D{task + 1}", -gradients[task] * first[task], alpha_gradient
                )
    yield from _implicit_neuron(loss, batch)


def _implicit_neuron(loss: TaskLoss, batch: TaskBatch) -> Iterator[Case]:
    """Implicit MAML on that neuron: (theta' - theta)^2 in its inner loss, and the minimum instead of one inner step.

    The minimum is (2 sum(x y) + 2 theta) / (2 sum(x^2) + 2): 24 / 28 and 32 / 124; its derivative in theta is
    2 / 28 and 2 / 124, and the meta-gradient that times the query gradient 2 x (theta' x - y).
    """
    loop, meta_params = make_inner_loop(loss, {"theta": 1.0}, alpha=0.01, proximal=2.0)
    adapt = loop.with_annealed_order(100)
    *_, optimum = adapt(expand_to_tasks(meta_params, 2), batch.support, 0)
    meta_gradient = implicit_gradient(adapt, loss, adapted=["theta"], proximal=2.0, cg_steps=1)
    _, gradients = meta_gradient(meta_params, batch, 0)
    expected = [(24 / 28, 2 / 28 * 2 * 1 * (24 / 28 - 2)), (32 / 124, 2 / 124 * 2 * 4 * (32 / 124 * 4 - 1))]
    for task, (weight, gradient) in enumerate(expected):
        yield Case(f"neuron: proximal minimum of D{task + 1}", weight, optimum["theta"][0, task].item())
        obtained = gradients.params["theta"][0, task].item()
        yield Case(f"neuron: implicit meta-gradient of D{task + 1}", gradient, obtained)
