"""Update rules, by hand: every number here is derived in the docstring above it."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from maml_cli.core import MetaParams, Params, Points, inner_loop, mean_loss
from maml_cli.core.clipping import clip_by_norm, clip_by_value
from maml_cli.core.curvature import init_kronecker, kronecker_keys, precondition_kronecker
from maml_cli.core.inner_loop import RuleParamsByStep, UpdateRule
from maml_cli.core.losses import squared
from maml_cli.core.update_rules import (
    ALPHA_SIGNS,
    INNER_OPTIMIZERS,
    alphas,
    chain,
    scale_by_alpha,
    scale_by_rms,
)


def _tensor(values: object, *shape: int) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(*shape)


def _by_step(rule_params: Params) -> RuleParamsByStep:
    return {key: value.unbind(-3) for key, value in rule_params.items()}


def test_kronecker_is_the_kronecker_product_with_the_flattened_gradient() -> None:
    """M_in = [[1, 2], [0, 1]], G = [[1, 0], [0, 3]], M_out = [[1, 0], [4, 1]]: M_in G M_out = [[25, 6], [12, 3]].

    The matrix on the flattened gradient (1, 0, 0, 3) is kron(M_in, M_out^T); a bias (1, 2) becomes (1, 2) M_out =
    (9, 2).
    """
    rule_params = {
        "head.w.in": _tensor([[1, 2], [0, 1]], 1, 1, 1, 2, 2),
        "head.w.out": _tensor([[1, 0], [4, 1]], 1, 1, 1, 2, 2),
        "head.b.out": _tensor([[1, 0], [4, 1]], 1, 1, 1, 2, 2),
    }
    gradients = {"head.w": _tensor([[1, 0], [0, 3]], 1, 1, 2, 2), "head.b": _tensor([1, 2], 1, 1, 1, 2)}
    updates, _ = precondition_kronecker(_by_step(rule_params), gradients, 0, {})
    assert updates["head.w"].flatten().tolist() == [25.0, 6.0, 12.0, 3.0]
    matrix = torch.kron(rule_params["head.w.in"][0, 0, 0], rule_params["head.w.out"][0, 0, 0].T.contiguous())
    assert torch.equal(matrix @ gradients["head.w"].flatten(), updates["head.w"].flatten())
    assert updates["head.b"].flatten().tolist() == [9.0, 2.0]


def test_each_inner_step_has_its_factors_and_later_steps_reuse_the_last() -> None:
    rule_params = {"context.out": _tensor([2, 3], 1, 1, 2, 1, 1)}
    gradient = {"context": _tensor([1], 1, 1, 1, 1)}
    assert [
        precondition_kronecker(_by_step(rule_params), gradient, step, {})[0]["context"].item() for step in range(4)
    ] == [
        2.0,
        3.0,
        3.0,
        3.0,
    ]


def test_a_curvature_starts_as_the_identity() -> None:
    params = {"hidden0.w": torch.randn(2, 3, 4), "hidden0.b": torch.randn(2, 1, 4)}
    rule_params = init_kronecker(params, params, num_steps=5)
    assert list(rule_params) == kronecker_keys(params) == ["hidden0.w.in", "hidden0.w.out", "hidden0.b.out"]
    assert rule_params["hidden0.w.in"].shape == (2, 5, 3, 3) and rule_params["hidden0.b.out"].shape == (2, 5, 4, 4)
    for step in range(5):
        updates, _ = precondition_kronecker(_by_step(rule_params), params, step, {})
        assert all(torch.equal(updates[key], params[key]) for key in params)


def test_a_clipped_norm_has_its_direction_and_shrinks_only_the_derivative_along_it() -> None:
    """|(6, 8)| = 10 becomes (3, 4), and the derivative is 5 / 10 times the projection orthogonal to (0.6, 0.8).

    5 / 10 [[1 - 0.36, -0.48], [-0.48, 1 - 0.64]] = [[0.32, -0.24], [-0.24, 0.18]]. A second task of norm 1 is
    unchanged, and a third of 0 has the derivative 1.
    """
    update = clip_by_norm(5.0)

    def clipped(w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        values, _ = update({}, {"w": w, "b": b}, 0, {})
        return values["w"], values["b"]

    w, b = _tensor([6, 0.6, 0], 3, 1, 1), _tensor([8, 0.8, 0], 3, 1, 1)
    values = torch.stack(clipped(w, b)).squeeze()
    assert values.T.tolist() == [pytest.approx([3, 4]), pytest.approx([0.6, 0.8]), [0, 0]]
    jacobian = torch.autograd.functional.jacobian(clipped, (w, b))  # type: ignore[no-untyped-call]
    by_task = [[[float(jacobian[i][j][t, 0, 0, t, 0, 0]) for j in range(2)] for i in range(2)] for t in range(3)]
    assert by_task[0] == [pytest.approx([0.32, -0.24]), pytest.approx([-0.24, 0.18])]
    assert by_task[1] == by_task[2] == [[1, 0], [0, 1]]


def test_clipped_entries_are_within_the_limit_and_have_no_derivative_where_they_are_clipped() -> None:
    gradient = _tensor([-12, 3, 10, 11], 1, 4, 1).requires_grad_()
    values, _ = clip_by_value(10.0)({}, {"w": gradient}, 0, {})
    assert values["w"].flatten().tolist() == [-10, 3, 10, 10]
    (derivative,) = torch.autograd.grad(values["w"].sum(), gradient)
    assert derivative.flatten().tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("limit", [1e-6, 1e6])
def test_the_largest_and_smallest_limits_clip_in_single_precision(limit: float) -> None:
    """A gradient whose square overflows counts as infinitely long: no step, rather than one to NaN."""
    gradients = {"w": torch.tensor([[[2 * limit]], [[0.0]], [[1e30]]])}
    values, _ = clip_by_norm(limit)({}, gradients, 0, {})
    assert values["w"].flatten().tolist() == pytest.approx([limit, 0, 0])


def test_adam_without_momentum_by_hand() -> None:
    """Kingma and Ba 2015, Algorithm 1 with beta1 = 0: after gradients 3 and 1, v = 0.001 (0.999 * 9 + 1).

    The first update is 3 / sqrt(9) = 1, the second 1 / sqrt((0.999 * 9 + 1) / 1.999), as 1 - 0.999^2 = 0.001 * 1.999.
    """
    rule_params, update, state = {}, scale_by_rms(), {}  # type: ignore[var-annotated]
    values = []
    for step, gradient in enumerate((3.0, 1.0)):
        updates, state = update(rule_params, {"w": _tensor([gradient], 1, 1, 1, 1)}, step, state)
        values.append(updates["w"].item())
    assert values == pytest.approx([1.0, 1 / math.sqrt((0.999 * 9 + 1) / 1.999)], rel=1e-12)


@pytest.mark.parametrize(("rule", "inverse_eps"), [(scale_by_rms(eps=1e-3), 1e3), (INNER_OPTIMIZERS["adam"], 1e8)])
def test_adam_has_a_derivative_where_the_gradient_is_zero(rule: UpdateRule, inverse_eps: float) -> None:
    """d/dg of g / sqrt(g^2 + eps^2) is 1 / eps at g = 0: large, and finite."""
    gradient = torch.zeros(1, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    updates, _ = rule({}, {"w": gradient}, 0, {})
    assert torch.autograd.grad(updates["w"].sum(), gradient)[0].item() == pytest.approx(inverse_eps)


def test_each_unroll_starts_with_an_empty_state() -> None:
    """The loss (w - 8)^2 whose first step has length alpha for every gradient: 0 -> 0.5 -> 0.5 + 0.5 * 15 / sqrt(v)."""
    params = {"w": torch.zeros(1, 1, 1, 1, dtype=torch.float64)}
    support = Points(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 8.0, dtype=torch.float64))
    loss = mean_loss(lambda p, x: p["w"], squared)
    update = chain(scale_by_rms(), scale_by_alpha({"w": "alpha"}))
    rule_params = {"alpha": _tensor([0.5], 1, 1, 1, 1, 1)}
    second = 0.5 + 0.5 * 15 / math.sqrt((0.999 * 256 + 225) / 1.999)
    for _ in range(2):
        steps = inner_loop.unroll(loss, MetaParams(params, rule_params), update, support, steps=2)
        assert [adapted["w"].item() for adapted in steps] == pytest.approx([0.0, 0.5, second], rel=1e-12)


def test_a_chain_applies_its_transforms_from_left_to_right() -> None:
    """Adam first: the sign times alpha times 5. The curvature first: the sign of 5 g, times alpha."""
    rule_params = {"alpha": _tensor([0.1], 1, 1, 1, 1, 1), "w.out": _tensor([5], 1, 1, 1, 1, 1)}
    gradient, scale = {"w": _tensor([-3], 1, 1, 1, 1)}, scale_by_alpha({"w": "alpha"})
    after, _ = chain(scale_by_rms(), precondition_kronecker, scale)(_by_step(rule_params), gradient, 0, {})
    before, _ = chain(precondition_kronecker, scale_by_rms(), scale)(_by_step(rule_params), gradient, 0, {})
    assert after["w"].item() == pytest.approx(-0.5) and before["w"].item() == pytest.approx(-0.1)


def test_a_positive_alpha_is_the_exponential_of_the_learned_value() -> None:
    """d(alpha g)/d(log alpha) = alpha g: its gradient never pushes alpha through zero."""
    log = _tensor([math.log(0.2), math.log(0.3)], 1, 1, 2, 1, 1).requires_grad_()
    update = scale_by_alpha({"w": "w"}, sign=ALPHA_SIGNS["positive"])
    gradient = {"w": _tensor([-4], 1, 1, 1, 1)}
    for step, alpha in enumerate((0.2, 0.3)):
        update_at_step = update(_by_step({"w": log}), gradient, step, {})[0]["w"]
        assert update_at_step.item() == pytest.approx(-4 * alpha)
        assert torch.autograd.grad(update_at_step.sum(), log)[0].flatten()[step].item() == pytest.approx(-4 * alpha)
    step_sizes = alphas({"w": log, "w.out": log}, groups={"w": "w"}, sign=ALPHA_SIGNS["positive"])
    assert step_sizes.keys() == {"w"} and step_sizes["w"].flatten().tolist() == pytest.approx([0.2, 0.3])


@pytest.mark.parametrize("sign", ALPHA_SIGNS)
def test_half_the_scale_is_half_the_update_whatever_the_alpha(sign: str) -> None:
    """Alphas 0.25 and 2 of two parameters on gradients 8 and -3, times 0.5: updates 1 and -3."""
    values = [ALPHA_SIGNS[sign].inverse(alpha) for alpha in (0.25, 2.0)]
    options: dict[str, Any] = {"sign": ALPHA_SIGNS[sign], "scale": 0.5}
    rule_params = {"w": _tensor(values, 1, 1, 1, 1, 2)}
    update = scale_by_alpha({"w": "w"}, **options)
    updates, _ = update(_by_step(rule_params), {"w": _tensor([8, -3], 1, 1, 1, 2)}, 0, {})
    assert updates["w"].flatten().tolist() == pytest.approx([1.0, -3.0], rel=1e-15)
    step_sizes = alphas(rule_params, groups={"w": "w"}, **options)
    assert step_sizes["w"].flatten().tolist() == pytest.approx([0.125, 1.0], rel=1e-15)
