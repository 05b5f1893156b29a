"""The network, against torch.nn; its initial parameters, against their stated distributions; the losses."""

import math
from functools import partial

import pytest
import torch

from maml_cli.core import LOSSES, Points, init_mlp, mean_loss, mlp
from maml_cli.tasks import make_generator


@pytest.mark.parametrize("hidden", [[], [5], [4, 6, 3]])
def test_mlp_is_a_stack_of_linear_layers(hidden: list[int]) -> None:
    params = init_mlp(make_generator(0, "x"), hidden=hidden, init="torch")
    layers: list[torch.nn.Module] = []
    for name in [f"hidden{i}" for i in range(len(hidden))] + ["head"]:
        weight, bias = params[f"{name}.w"], params[f"{name}.b"]
        linear = torch.nn.Linear(weight.shape[0], weight.shape[1], dtype=torch.float64)
        linear.load_state_dict({"weight": weight.T, "bias": bias[0]})
        layers += [linear, torch.nn.Tanh()]
    x = torch.randn(7, 1, dtype=torch.float64, generator=make_generator(1, "x"))
    torch.testing.assert_close(mlp(params, x, activation=torch.tanh), torch.nn.Sequential(*layers[:-1])(x))


def test_leading_axes_are_batches() -> None:
    params = init_mlp(make_generator(0, "x"), hidden=[4, 4], init="torch", batch=(2, 3))
    x = torch.randn(2, 3, 5, 1, dtype=torch.float64, generator=make_generator(1, "x"))
    batched = mlp(params, x, activation=torch.relu)
    for r in range(2):
        for b in range(3):
            single = mlp({key: value[r, b] for key, value in params.items()}, x[r, b], activation=torch.relu)
            torch.testing.assert_close(batched[r, b], single)


@pytest.mark.parametrize(
    ("init", "std", "limit"),
    [
        ("uniform", 1 / math.sqrt(3 * 50), 1 / math.sqrt(50)),
        ("torch", 1 / math.sqrt(3 * 50), 1 / math.sqrt(50)),
        ("glorot_uniform", math.sqrt(2 / 100), math.sqrt(6 / 100)),
        ("lecun_normal", 1 / math.sqrt(50), math.inf),
        ("he_normal", math.sqrt(2 / 50), math.inf),
        # A normal cut at two deviations keeps 0.8796 of its deviation.
        ("truncated_normal", 0.01 * 0.8796, 0.02),
    ],
)
def test_initial_weights_have_the_stated_standard_deviation(init: str, std: float, limit: float) -> None:
    params = init_mlp(make_generator(0, "x"), hidden=[50, 50], init=init, batch=(20,))
    weights = params["hidden1.w"]
    assert weights.shape == (20, 50, 50) and params["hidden1.b"].shape == (20, 1, 50)
    assert abs(weights.std().item() / std - 1) < 4 / math.sqrt(2 * weights.numel()) + 1e-4
    assert weights.abs().max() <= limit
    bias = params["hidden1.b"]
    if init == "torch":
        assert abs(bias.std().item() / std - 1) < 0.1 and bias.abs().max() <= limit
    else:
        assert not bias.any()


@pytest.mark.parametrize(
    ("error", "mse", "l1", "huber"),
    [([0.5, -2.0], (0.25 + 4) / 2, 1.25, (0.125 + 1.5) / 2), ([0.0, 1.0], 0.5, 0.5, 0.25)],
)
def test_losses_are_means_over_points(error: list[float], mse: float, l1: float, huber: float) -> None:
    points = Points(torch.zeros(1, 1, 2, 1), -torch.tensor(error).reshape(1, 1, 2, 1))
    for name, expected in {"mse": mse, "half_mse": mse / 2, "l1": l1, "huber": huber}.items():
        loss = mean_loss(lambda params, x: torch.zeros_like(x), LOSSES[name])({}, points)
        assert loss.shape == (1, 1) and loss.item() == pytest.approx(expected, abs=1e-7)


def test_shapes_that_would_broadcast_are_refused() -> None:
    loss = mean_loss(partial(lambda params, x: x), LOSSES["mse"])
    with pytest.raises(ValueError, match=r"\(1, 2, 3, 1\) and target \(1, 2, 3\)"):
        loss({}, Points(torch.zeros(1, 2, 3, 1), torch.zeros(1, 2, 3)))
