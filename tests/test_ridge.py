"""Heads in closed form, by hand and by least squares on augmented systems."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import maml_cli as maml
from maml_cli.config import Config
from maml_cli.core import (
    BODY_PENALTY,
    PENALTY,
    MetaParams,
    Params,
    Points,
    RidgeHead,
    TaskBatch,
    expand_to_tasks,
    mlp,
    mlp_features,
    query_gradient,
)
from maml_cli.core.ridge import solve_ridge
from maml_cli.experiment import build_experiment
from tests.conformance import sample_batch
from tests.conftest import Cli

FLOAT = torch.float64
KEYS = ("head.w", "head.b")


def _tensor(values: object, *shape: int) -> Tensor:
    return torch.tensor(values, dtype=FLOAT).reshape(*shape)


def _features(params: Params, x: Tensor) -> Tensor:
    return mlp_features(params, x, activation=torch.tanh)


def _network(hidden: int) -> Params:
    generator = torch.Generator().manual_seed(0)
    shapes = {"hidden0.w": (1, hidden), "hidden0.b": (1, hidden), "head.w": (hidden, 1), "head.b": (1, 1)}
    return {key: torch.randn(1, 2, *shape, generator=generator, dtype=FLOAT) for key, shape in shapes.items()}


def _points(count: int) -> Points:
    generator = torch.Generator().manual_seed(1)
    return Points(*(torch.randn(1, 2, count, 1, generator=generator, dtype=FLOAT) for _ in range(2)))


def test_one_point_and_a_prior_by_hand() -> None:
    """Feature x = 2 and a 1, w0 = (1, 0), y = 6, lambda = 3: the residual is 4, F F^T + lambda = 4 + 1 + 3 = 8.

    So w = (1, 0) + (2, 1) * 4 / 8 = (2, 0.5), the prediction 4.5, and the loss 1.5^2 + 3 (1 + 0.25) = 6.
    """
    params = {"head.w": _tensor([1], 1, 1, 1, 1), "head.b": _tensor([0], 1, 1, 1, 1)}
    points, log_penalty = Points(_tensor([2], 1, 1, 1, 1), _tensor([6], 1, 1, 1, 1)), _tensor([math.log(3)], 1, 1, 1, 1)
    head = RidgeHead(lambda params, x: x)
    solved = head.solve(params, points, log_penalty)
    assert [solved[key].item() for key in KEYS] == pytest.approx([2, 0.5])
    assert head.loss(params, points, log_penalty).item() == pytest.approx(6)


@pytest.mark.parametrize("count", [3, 4, 9])
@pytest.mark.parametrize("per_feature", [False, True])
def test_the_solution_is_that_of_least_squares_on_rows_for_the_penalties(count: int, per_feature: bool) -> None:
    """With fewer, as many and more points than features: rows sqrt(lambda) w = sqrt(lambda) w0 below F w = y."""
    params, points, head = _network(3), _points(count), RidgeHead(_features)
    log_penalty = torch.linspace(-2, 1, 4, dtype=FLOAT).view(1, 1, 4, 1) if per_feature else _tensor([-1], 1, 1, 1, 1)
    solved = head.solve(params, points, log_penalty)
    inputs = torch.cat([torch.tanh(points.x * params["hidden0.w"] + params["hidden0.b"]), 1 + 0 * points.x], dim=-1)
    prior = torch.cat([params[key] for key in KEYS], dim=-2)
    roots = torch.diag_embed((log_penalty / 2).exp().expand(1, 2, 4, 1).squeeze(-1))
    rows, targets = torch.cat([inputs, roots], dim=-2), torch.cat([points.y, roots @ prior], dim=-2)
    expected = torch.linalg.lstsq(rows, targets).solution
    torch.testing.assert_close(torch.cat([solved[key] for key in KEYS], dim=-2), expected)
    residuals = (rows @ expected - targets).square().sum(dim=(-2, -1)) / count
    torch.testing.assert_close(head.loss(params, points, log_penalty), residuals)
    assert all(solved[key] is params[key] for key in params if key not in KEYS)


def test_the_gradient_of_the_loss_is_that_of_the_squared_error_at_the_solution() -> None:
    """The envelope theorem: at the minimum over the head, moving the head changes nothing to first order."""
    params, points, head, log_penalty = _network(3), _points(5), RidgeHead(_features), _tensor([-1], 1, 1, 1, 1)
    body = {key: value.requires_grad_() for key, value in params.items() if key.startswith("hidden")}
    actual = torch.autograd.grad(head.loss(params | body, points, log_penalty).sum(), list(body.values()))
    fixed = {key: value.detach() for key, value in head.solve(params, points, log_penalty).items() if key in KEYS}
    errors = mlp(params | body | fixed, points.x, activation=torch.tanh) - points.y
    expected = torch.autograd.grad(errors.square().mean(dim=(-2, -1)).sum(), list(body.values()))
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_small_penalties_interpolate_large_ones_keep_the_prior_and_bad_inputs_are_nan() -> None:
    """In float32."""
    params = {key: value.float() for key, value in _network(40).items()}
    points = Points(*(value.float() for value in _points(5)))
    head = RidgeHead(_features)
    errors = [
        (mlp(solved, points.x, activation=torch.tanh) - points.y).abs().max().item()
        for value in (1e-8, 1e8)
        for solved in [head.solve(params, points, torch.full((1, 1, 1, 1), math.log(value)))]
    ]
    before = (mlp(params, points.x, activation=torch.tanh) - points.y).abs().max().item()
    assert errors[0] < 0.01 and errors[1] == pytest.approx(before, rel=1e-4)
    assert solve_ridge(torch.full((2, 3), torch.nan), torch.ones(2, 1), torch.ones(1, 1)).isnan().all()


def _config(**inner: Any) -> Config:
    settings = {"head": "ridge", "adapt": "head"} | inner
    model = {"hidden": [5, 4], "activation": "tanh"}
    return Config.model_validate({"model": model, "inner": settings, "run": {"dtype": "float64"}})


def test_without_gradient_steps_one_inner_step_is_the_solution_and_further_ones_change_nothing() -> None:
    experiment = build_experiment(_config())
    meta_params, batch = experiment.init_meta_params([0]), sample_batch(experiment)
    start, *solved = experiment.algorithm.unroll(expand_to_tasks(meta_params, 4), batch.support, 3)
    assert start["head.w"].equal(meta_params.params["head.w"].unsqueeze(1).expand(1, 4, 4, 1))
    assert list(meta_params.rule_params) == [PENALTY]
    assert all(solved[0][key].equal(later[key]) for later in solved[1:] for key in KEYS)
    losses = [experiment.loss(params, batch.support).mean().item() for params in (start, solved[0])]
    assert losses[1] < 0.6 * losses[0]


def test_a_body_that_stands_still_gives_the_solution_without_gradient_steps() -> None:
    experiment, alone = build_experiment(_config(adapt="all", alpha={"init": 1e-30})), build_experiment(_config())
    batch = sample_batch(alone)
    results = [
        list(each.algorithm.unroll(expand_to_tasks(each.init_meta_params([0]), 4), batch.support, 1))[-1]
        for each in (experiment, alone)
    ]
    for key, value in results[0].items():
        torch.testing.assert_close(value, results[1][key], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["inner.adapt=body"], "ridge solves for the head in every inner step"),
        (["inner.loss=l1"], "inner.loss must be mse"),
        (["outer.meta_gradient=reptile"], "ridge learns by differentiating its solution"),
        (["inner.order=implicit", "inner.proximal=1"], "ridge learns by differentiating its solution"),
        (["model.num_context=2"], "ridge takes neither inner.proximal nor model.num_context"),
        (["model.hidden=[]"], "ridge without hidden layers has no body"),
        (["inner.adapt=head", "inner.steps=2"], "takes no gradient steps"),
        (["inner.adapt=head", "inner.clip_norm=2"], "takes no gradient steps"),
        (["inner.ridge.noise=0.001"], "inner.ridge.noise must be at least 0.002, got 0.001"),
        (["inner.head=gradient", "inner.ridge.noise=0.1"], "inner.ridge.noise has no effect: inner.head is not ridge"),
        (["run.engine=native", "inner.ridge.noise=0.1"], "native does not support inner.ridge.noise = 0.1"),
    ],
)
def test_combinations_that_make_no_sense_are_refused_with_the_reason(
    cli: Cli, settings: list[str], message: str
) -> None:
    options = [word for setting in ["inner.head=ridge", *settings] for word in ("-s", setting)]
    result = cli("config", "check", "smoke", *options)
    assert result.code == 2 and message in result.err.replace("\n", " "), result.err


@pytest.mark.parametrize("inner", ["inner.adapt=head", "inner.steps=2"])
def test_it_trains_is_resumed_evaluated_drawn_and_adapts_to_points(cli: Cli, inner: str) -> None:
    settings = ["-s", "inner.head=ridge", "-s", inner, "-s", "outer.steps=30", "-s", "run.eval_tasks=4"]
    assert cli("train", "-c", "smoke", *settings, "-s", "run.checkpoint_every=10", "--out", "run").code == 0
    assert cli("eval", "run", "--tasks", 20).code == 0 and cli("plot", "run", "--tasks", 20).code == 0
    drawn = cli("plot", "run", "--kind", "alpha")
    assert drawn.code == (2 if inner == "inner.adapt=head" else 0)
    assert ("run: has no alpha to draw" in drawn.err) == (inner == "inner.adapt=head")
    x = torch.linspace(-4, 4, 10)
    fitted = maml.load("run").adapt(x, torch.sin(x))
    before, *_, after = (float((values - torch.sin(x)).square().mean()) for values in fitted.steps(x))
    assert after < 0.5 * before


def test_what_is_learned_without_effect_is_an_error_but_for_penalties_in_first_order() -> None:
    def weights(step: int) -> list[float]:
        return [1.0]

    def loss(params: Params, points: Points) -> Tensor:
        return params["w"].square().sum(dim=(-2, -1))

    values = MetaParams(
        {"w": _tensor([3], 1, 1, 1)}, {key: _tensor([1], 1, 1, 1, 1) for key in (BODY_PENALTY, "alpha")}
    )
    batch = TaskBatch(_points(2), _points(2))
    for key in (BODY_PENALTY, "alpha"):
        gradient = query_gradient(
            lambda start, points, step: iter([start.params]), loss, learned=[key], weights=weights
        )
        if key == "alpha":
            with pytest.raises(RuntimeError, match="alpha: learned, but without effect"):
                gradient(values, batch, 0)
        else:
            assert gradient(values, batch, 0)[1].rule_params[key].flatten().tolist() == [0, 0]
