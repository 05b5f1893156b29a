"""The inner loop by itself: its iterates, their derivatives, and the absence of side effects."""

from functools import partial

import pytest
import torch
from torch import Tensor

from maml_cli.core import MetaParams, Params, Points, init_mlp, inner_loop, mean_loss, mlp
from maml_cli.core.extrapolation import EXTRAPOLATIONS, extrapolate
from maml_cli.core.losses import squared
from maml_cli.core.update_rules import chain, scale_by_alpha
from maml_cli.tasks import make_generator

LOSS = mean_loss(partial(mlp, activation=torch.tanh), squared)
TASKS = 6


def _params() -> Params:
    params = init_mlp(make_generator(0, "x"), hidden=[5, 4], init="torch")
    return {key: value.expand(1, TASKS, *value.shape).clone() for key, value in params.items()}


def _support(tasks: int = TASKS) -> Points:
    x, y = torch.randn(2, 1, tasks, 7, 1, generator=make_generator(1, "x"), dtype=torch.float64)
    return Points(x, y)


def _unroll(params: Params, support: Points, *, steps: int = 3, alpha: Tensor | None = None, first_order: bool = False):  # type: ignore[no-untyped-def]
    rule = {"alpha": torch.full((1, 1, 1, 1, 1), 0.1, dtype=torch.float64) if alpha is None else alpha}
    update = scale_by_alpha(dict.fromkeys(params, "alpha"))
    return inner_loop.unroll(LOSS, MetaParams(params, rule), update, support, steps=steps, first_order=first_order)


def _last(*args, **kwargs) -> Params:  # type: ignore[no-untyped-def]
    *_, last = _unroll(*args, **kwargs)
    return last  # type: ignore[no-any-return]


def test_the_inner_loop_is_gradient_descent_for_each_task_alone() -> None:
    """Against a plain loop over tasks with torch.func.grad."""
    params, support = _params(), _support()
    iterates = list(_unroll(params, support))
    assert len(iterates) == 4
    for task in range(TASKS):
        params_of_task = {key: value[:, task : task + 1] for key, value in params.items()}
        points = Points(*(values[:, task : task + 1] for values in support))
        for adapted in iterates:
            for key, value in params_of_task.items():
                torch.testing.assert_close(adapted[key][:, task : task + 1], value, rtol=1e-12, atol=1e-12)
            gradients = torch.func.grad(lambda p, points=points: LOSS(p, points).sum())(params_of_task)
            params_of_task = {key: value - 0.1 * gradients[key] for key, value in params_of_task.items()}


@pytest.mark.parametrize("first_order", [False, True])
def test_permuting_or_dropping_tasks_changes_no_other_task(first_order: bool) -> None:
    params, support = _params(), _support()
    all_tasks = _last(params, support, first_order=first_order)
    order = torch.tensor([4, 0, 5])
    selected = _last(
        {key: value[:, order] for key, value in params.items()},
        Points(*(points[:, order] for points in support)),
        first_order=first_order,
    )
    for key, value in selected.items():
        torch.testing.assert_close(value, all_tasks[key][:, order], rtol=0, atol=1e-14)


def test_the_steps_are_differentiable_in_parameters_alpha_and_support_points() -> None:
    """Against finite differences of the same function, in float64 with tanh: torch.autograd.gradcheck."""
    params, support = _params(), _support()
    keys = list(params)

    def adapted(alpha: Tensor, x: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        start = dict(zip(keys, values, strict=True))
        return tuple(_last(start, Points(x, support.y), alpha=alpha, steps=2).values())

    alpha = torch.full((1, TASKS, 2, 1, 1), 0.1, dtype=torch.float64, requires_grad=True)
    inputs = (alpha, support.x.clone().requires_grad_(), *(value.requires_grad_() for value in params.values()))
    assert torch.autograd.gradcheck(adapted, inputs, fast_mode=True)


def test_first_order_iterates_equal_second_order_ones_and_have_the_identity_as_derivative() -> None:
    params, support = _params(), _support()
    params["head.w"].requires_grad_()
    second, first = _last(params, support), _last(params, support, first_order=True)
    for key in params:
        assert torch.equal(first[key], second[key])
    for adapted, is_identity in (first, True), (second, False):
        (gradient,) = torch.autograd.grad(adapted["head.w"].sum(), params["head.w"])
        assert torch.equal(gradient, torch.ones_like(gradient)) == is_identity


def test_no_graph_is_built_where_gradients_are_off() -> None:
    params, support = _params(), _support()
    with torch.no_grad():
        for adapted in _unroll(params, support):
            assert not torch.is_grad_enabled()
            assert all(not value.requires_grad and value.grad_fn is None for value in adapted.values())
    for key, value in _last(params, support).items():
        assert torch.equal(value, adapted[key])


@pytest.mark.parametrize("enabled", [False, True])
def test_the_grad_mode_of_the_caller_is_unchanged(enabled: bool) -> None:
    with torch.set_grad_enabled(enabled):
        steps = _unroll(_params(), _support())
        for _ in steps:
            assert torch.is_grad_enabled() == enabled
        steps = _unroll(_params(), _support())
        next(steps)
        next(steps)
        steps.close()
        assert torch.is_grad_enabled() == enabled


def test_unrolling_changes_none_of_its_arguments() -> None:
    params, support = _params(), _support()
    before = {key: value.clone() for key, value in params.items()}
    _last(params, support)
    assert all(torch.equal(value, before[key]) and not value.requires_grad for key, value in params.items())


@pytest.mark.parametrize(
    ("after_last_step", "iterates"),
    [
        ("hold", [0.0, 4.0, 5.0, 5.75, 6.3125]),  # a quarter of the distance to 8, at every step
        ("decay", [0.0, 4.0, 5.0, 5.05, 5.0525]),  # 5 % of 1, the last step, and 5 % of that
        ("stop", [0.0, 4.0, 5.0, 5.0, 5.0]),
    ],
)
def test_inner_steps_after_the_last_alpha_are_extrapolated(after_last_step: str, iterates: list[float]) -> None:
    """With loss (w - 8)^2 a step covers 2 alpha of the distance to 8: a half, a quarter, then as extrapolated."""
    assert _extrapolated(after_last_step, alphas=[0.25, 0.125]) == pytest.approx(iterates, rel=1e-14)


def test_decaying_steps_of_a_task_are_at_most_5_percent_as_long_as_the_one_before() -> None:
    """An alpha of 1.5 covers three times the distance to 8, 12, and half of it, from 16, as much again: by 0.6 instead.
    One of 63/128 covers 63/64 of it; half of it then 63/128 of the rest, 1/16, which is less than 5 %."""
    assert _extrapolated("decay", alphas=[0.25, 1.5]) == pytest.approx([0.0, 4.0, 16.0, 15.4, 15.37], rel=1e-14)
    halved = 63 / 128 / 16
    expected = [0.0, 4.0, 8 - 1 / 16, 8 - 1 / 16 + halved, 8 - 1 / 16 + 1.05 * halved]
    assert _extrapolated("decay", alphas=[0.25, 63 / 128]) == pytest.approx(expected, rel=1e-14)


def _extrapolated(after_last_step: str, alphas: list[float]) -> list[float]:
    """The parameter after 0 to 4 inner steps on (w - 8)^2 from 0, two of which have an alpha."""
    params = {"w": torch.zeros(1, 1, 1, 1, dtype=torch.float64)}
    support = Points(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 8.0, dtype=torch.float64))
    loss = mean_loss(lambda p, x: p["w"], squared)
    rule = {"alpha": torch.tensor(alphas, dtype=torch.float64).reshape(1, 1, 2, 1, 1)}
    update = chain(scale_by_alpha({"w": "alpha"}), extrapolate(2, EXTRAPOLATIONS[after_last_step]))
    steps = inner_loop.unroll(loss, MetaParams(params, rule), update, support, steps=4)
    return [adapted["w"].item() for adapted in steps]


def test_half_the_scale_covers_half_the_distance_that_alpha_covers() -> None:
    """With loss (w - 8)^2 an alpha of 0.25 covers a half of the distance to 8, a scale of 0.5 a quarter of it."""
    params = {"w": torch.zeros(1, 1, 1, 1, dtype=torch.float64)}
    support = Points(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 8.0, dtype=torch.float64))
    loss = mean_loss(lambda p, x: p["w"], squared)
    rule = {"alpha": torch.full((1, 1, 1, 1, 1), 0.25, dtype=torch.float64)}
    update = scale_by_alpha({"w": "alpha"}, scale=0.5)
    steps = inner_loop.unroll(loss, MetaParams(params, rule), update, support, steps=3)
    assert [adapted["w"].item() for adapted in steps] == [0.0, 2.0, 3.5, 4.625]
