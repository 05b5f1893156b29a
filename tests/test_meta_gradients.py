"""Where meta-gradients come from, by hand and by closed forms."""

import pytest
import torch
from torch import Tensor

from maml_cli.core import (
    InnerLoop,
    MetaParams,
    Points,
    TaskBatch,
    TaskLoss,
    adapted_keys,
    implicit_gradient,
    last_step_weights,
    with_context,
)
from maml_cli.core.meta_gradients import annealed_step_weights, conjugate_gradient, joint_gradient, reptile_gradient
from maml_cli.core.update_rules import scale_by_alpha
from maml_cli.tasks import Sinusoids, make_generator, with_task_parameters


def _points(x: list[float], y: list[float]) -> Points:
    return Points(*(torch.tensor(values, dtype=torch.float64).reshape(1, 1, -1, 1) for values in (x, y)))


LINE: TaskLoss = lambda params, points: ((points.x @ params["w"] - points.y) ** 2).sum(dim=(-2, -1))  # noqa: E731
FUNCTIONS = Sinusoids(*(torch.full((1, 1, 1, 1), value, dtype=torch.float64) for value in (2.0, 3.0, 0.5, 0.0)))


def _learner(*, alpha: float, proximal: float = 0.0) -> tuple[InnerLoop, MetaParams]:
    meta_params = MetaParams(
        {"w": torch.ones(1, 1, 1, dtype=torch.float64)}, {"alpha": torch.full((1, 1, 1, 1), alpha, dtype=torch.float64)}
    )
    return InnerLoop(LINE, scale_by_alpha({"w": "alpha"}), ["w"], proximal=proximal), meta_params


def test_reptile_is_theta_minus_phi_and_each_inner_step_sees_another_minibatch() -> None:
    """f(x) = w x from w = 1, alpha 0.1, a support point (1, 3), query points (1, 5) and (2, 0): a step on each.

    1 + 0.2 * (3 - 1) = 1.4; 1.4 + 0.2 * (5 - 1.4) = 2.12; 2.12 - 0.4 * 2 * 2.12 = 0.424; and again (1, 3):
    0.424 + 0.2 * 2.576 = 0.9392. The query loss there is (0.9392 - 5)^2 + (2 * 0.9392)^2.
    """
    loop, meta_params = _learner(alpha=0.1)
    batch = TaskBatch(_points([1], [3]), _points([1, 2], [5, 0]))
    for steps, adapted in enumerate((1.4, 2.12, 0.424, 0.9392), start=1):
        losses, gradient = reptile_gradient(loop.with_annealed_order(steps), LINE, steps=steps)(meta_params, batch, 0)
        assert gradient.params["w"].item() == pytest.approx(1 - adapted, rel=1e-12) and gradient.rule_params == {}
        assert losses.item() == pytest.approx((adapted - 5) ** 2 + (2 * adapted) ** 2, rel=1e-12)


def test_joint_training_sees_all_points_and_does_not_adapt() -> None:
    """At w = 1 the errors are -2 at x = 1, -4 at x = 1 and 2 at x = 2: loss 24, gradient 2 (-2 - 4 + 4) = -4."""
    _, meta_params = _learner(alpha=0.1)
    batch = TaskBatch(_points([1], [3]), _points([1, 2], [5, 0]))
    losses, gradient = joint_gradient(LINE)(meta_params, batch, 0)
    assert losses.item() == 24.0 and gradient.params["w"].item() == -4.0 and gradient.rule_params == {}


@pytest.mark.parametrize("strength", [0.5, 2.0, 100.0])
def test_implicit_gradient_of_a_line_is_its_closed_form(strength: float) -> None:
    """Support (1, 3), (2, 0), query (1, 5), theta 1: phi = (6 + lambda) / (10 + lambda), and the meta-gradient is
    2 (phi - 5) times d phi / d theta = lambda / (10 + lambda)."""
    # One inner step reaches the minimum of the parabola.
    loop, meta_params = _learner(alpha=1 / (10 + strength), proximal=strength)
    batch = TaskBatch(_points([1, 2], [3, 0]), _points([1], [5]))
    meta_gradient = implicit_gradient(loop.with_annealed_order(1), LINE, adapted=["w"], proximal=strength, cg_steps=1)
    losses, gradient = meta_gradient(meta_params, batch, 0)
    phi = (6 + strength) / (10 + strength)
    assert losses.item() == pytest.approx((phi - 5) ** 2, rel=1e-12)
    assert gradient.params["w"].item() == pytest.approx(2 * (phi - 5) * strength / (10 + strength), rel=1e-12)


def test_conjugate_gradients_solve_each_task_and_freeze_solved_or_indefinite_ones() -> None:
    """A random positive definite system of 5 unknowns in 5 steps and in 9; a zero target; negative curvature."""
    factor, target = torch.randn(2, 4, 5, 6, generator=make_generator(0, "x"), dtype=torch.float64).tensor_split(
        [5], dim=-1
    )
    matrix = factor @ factor.mT + torch.eye(5, dtype=torch.float64)
    target = target.squeeze(-1).clone()
    target[1, 2] = 0
    matrix[0, 3] = -torch.eye(5, dtype=torch.float64)

    def system(vector: Tensor) -> Tensor:
        return torch.einsum("abij,abj->abi", matrix, vector)

    expected = torch.linalg.solve(matrix, target)
    expected[0, 3] = 0
    for steps in (5, 9):
        torch.testing.assert_close(conjugate_gradient(system, target, steps=steps), expected, rtol=1e-8, atol=1e-9)
    assert not torch.allclose(conjugate_gradient(system, target, steps=2), expected, rtol=1e-3)


def test_weights_of_the_multi_step_loss() -> None:
    assert list(last_step_weights(3)(7)) == [0, 0, 0, 1]
    weights = annealed_step_weights(4, until=10)
    assert list(weights(0)) == [0, 0.25, 0.25, 0.25, 0.25]
    assert list(weights(5)) == pytest.approx([0, 0.125, 0.125, 0.125, 0.625])
    assert list(weights(10)) == list(weights(99)) == [0, 0, 0, 0, 1]


def test_a_context_is_zero_for_each_task_and_adapts_alone() -> None:
    params = {key: torch.ones(2, 3, 1, 4) for key in ("hidden0.w", "hidden0.b", "head.w", "head.b")}
    started = with_context(params, num_context=5)
    assert started["context"].shape == (2, 3, 1, 5) and not started["context"].any() and "context" not in params
    assert with_context(params, num_context=0) is params
    assert adapted_keys(started, subset="context") == ["context"]
    assert adapted_keys(started, subset="body") == ["hidden0.w", "hidden0.b"]
    assert adapted_keys(started, subset="all") == list(started)


def test_an_oracle_has_amplitude_frequency_and_phase_as_inputs() -> None:
    batch = TaskBatch(*(with_task_parameters(p, FUNCTIONS) for p in (_points([1, 7], [3, 4]), _points([5], [5]))))
    assert batch.support.x[0, 0].tolist() == [[1.0, 2.0, 3.0, 0.5], [7.0, 2.0, 3.0, 0.5]]
    assert batch.query.x[0, 0].tolist() == [[5.0, 2.0, 3.0, 0.5]] and batch.query.y.item() == 5.0
