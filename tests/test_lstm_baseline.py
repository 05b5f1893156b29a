"""The LSTM baseline: a function of the set of support points, trained on the tasks of a config."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from maml_cli.config import Config, load_config
from maml_cli.core import Points
from maml_cli.dev.lstm_baseline import lstm_errors, make_lstm, num_lstm_values, predict, read_lstm, train_lstm
from maml_cli.errors import DivergedError
from maml_cli.evaluation import Protocol, sample_test_tasks
from maml_cli.experiment import build_experiment


def _config(*overrides: str) -> Config:
    return load_config("finn-10shot", ["tasks.num_support=5", "outer.steps=2", *overrides]).config


def _cell(weights: dict[str, Tensor], layer: int, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """An LSTM cell by its equations; gates in the order input, forget, cell, output."""
    gates = x @ weights[f"lstm.weight_ih_l{layer}"].T + weights[f"lstm.bias_ih_l{layer}"]
    gates = gates + h @ weights[f"lstm.weight_hh_l{layer}"].T + weights[f"lstm.bias_hh_l{layer}"]
    i, f, g, o = gates.chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def test_predictions_are_those_of_the_equations_point_by_point() -> None:
    """Three support points, four passes whose hidden states are averaged, and one query point (x, 0)."""
    network = make_lstm(0).double()
    weights = {key: value.detach() for key, value in network.named_parameters()}
    x, y = torch.tensor([0.5, -1.0, 2.0]).double(), torch.tensor([1.0, 0.0, -2.0]).double()
    hidden = [torch.zeros(40).double()] * 2
    cells = [[torch.zeros(40).double()] * 2 for _ in range(3)]
    for _ in range(4):
        states = []
        for k in range(3):
            values, new = torch.stack([x[k], y[k]]), []
            for layer in range(2):
                values, cells[k][layer] = _cell(weights, layer, values, hidden[layer], cells[k][layer])
                new.append(values)
            states.append(new)
        hidden = [torch.stack([state[layer] for state in states]).mean(dim=0) for layer in range(2)]
    values = torch.tensor([1.5, 0.0]).double()
    for layer in range(2):
        values, _ = _cell(weights, layer, values, hidden[layer], torch.zeros(40).double())
    expected = values @ weights["head.weight"][0] + weights["head.bias"][0]
    support = Points(x.reshape(1, 3, 1), y.reshape(1, 3, 1))
    assert predict(network, support, torch.full((1, 1, 1), 1.5).double()).item() == pytest.approx(expected.item())


def test_it_has_as_many_values_as_on_paper() -> None:
    """Four gates of 40 units, from 2 inputs and from 40, with two biases each; 41 values of the linear layer."""
    assert num_lstm_values() == 4 * 40 * (2 + 40 + 2) + 4 * 40 * (40 + 40 + 2) + 41


def test_it_trains_on_the_tasks_of_its_config_and_is_read_for_that_config_alone(tmp_path: Path) -> None:
    """The first step of Adam moves each weight by the learning rate against the sign of its gradient."""
    config = _config("outer.steps=1", "outer.lr=1e-3")
    train_lstm(config, tmp_path)
    trained = read_lstm(config, tmp_path)
    assert trained is not None and trained.seconds > 0
    assert (
        read_lstm(_config("outer.steps=1"), tmp_path / "none") is read_lstm(_config("outer.lr=2e-3"), tmp_path) is None
    )
    before, after = (network.get_parameter("head.bias") for network in (make_lstm(0), trained.network))
    assert (before - after).abs().item() == pytest.approx(1e-3, rel=1e-3)


def test_its_errors_are_means_over_test_tasks(tmp_path: Path) -> None:
    config, protocol = _config(), Protocol(num_tasks=5, seed=3)
    network = make_lstm(1)
    (block,) = sample_test_tasks(build_experiment(config).family, protocol, 5).iter_blocks()
    support, grid = (Points(*(tensor[0].float() for tensor in block.points[name])) for name in ("support", "grid"))
    expected = [
        (predict(network, Points(support.x[task : task + 1], support.y[task : task + 1]), grid.x[:1]) - grid.y[task])
        .square()
        .mean()
        .item()
        for task in range(5)
    ]
    errors = lstm_errors(network, config, protocol, 5).grid.mse
    assert errors.mean == pytest.approx(sum(expected) / 5, rel=1e-5)
    assert errors.tail is not None and errors.tail.worst == pytest.approx(max(expected), rel=1e-5)


def test_a_training_that_diverges_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="the loss of outer step 2 is not finite"):
        train_lstm(_config("outer.lr=1e30"), tmp_path)
    assert not any(tmp_path.iterdir())
