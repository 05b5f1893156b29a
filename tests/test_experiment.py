"""The experiment of a config: each key changes what it names."""

from typing import Any

import pytest
import torch

from maml_cli.config import Config
from maml_cli.core import expand_to_tasks
from maml_cli.experiment import build_experiment
from maml_cli.tasks import SineFamily, make_generator


def _config(**sections: dict[str, Any]) -> Config:
    base: dict[str, dict[str, Any]] = {
        "model": {"hidden": [4], "activation": "tanh"},
        "outer": {"steps": 6, "tasks_per_step": 3},
        "run": {"dtype": "float64", "device": "cpu"},
    }
    return Config.model_validate({key: base.get(key, {}) | sections.get(key, {}) for key in {*base, *sections}})


def test_the_family_is_that_of_the_config() -> None:
    tasks = {"amplitude": [1, 2], "frequency": [3, 4], "phase": [5, 6], "offset": [7, 8], "x": [9, 10], "noise": 0.5}
    expected = SineFamily((1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0), (9.0, 10.0), 0.5)
    experiment = build_experiment(
        _config(tasks=tasks | {"num_support": 2, "num_query": 3}, outer={"tasks_per_step": 4})
    )
    assert experiment.family == expected
    batch = experiment.sample([make_generator(0, "x")])
    assert batch.support.x.shape == (1, 4, 2, 1) and batch.query.x.shape == (1, 4, 3, 1)
    assert batch.support.x.dtype == torch.float64


@pytest.mark.parametrize(("name", "zero_bias", "limit"), [("uniform", True, 1.0), ("torch", False, 1.0)])
def test_the_initialisation_is_that_of_the_config(name: str, zero_bias: bool, limit: float) -> None:
    params = build_experiment(_config(model={"hidden": [2000], "init": name})).init_meta_params([0]).params
    assert params["hidden0.w"].abs().max() <= limit and params["hidden0.w"].std().item() == pytest.approx(
        0.577, abs=0.02
    )
    assert bool(params["hidden0.b"].any()) != zero_bias


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        ("mse", lambda e: (e**2).mean()),
        ("half_mse", lambda e: (e**2).mean() / 2),
        ("l1", lambda e: e.abs().mean()),
        ("huber", lambda e: torch.where(e.abs() < 1, e**2 / 2, e.abs() - 0.5).mean()),
    ],
)
def test_the_loss_of_the_config_is_that_of_both_loops(loss: str, formula: Any) -> None:
    """One inner step of 0.1 by hand, with torch.autograd, for each task; then the loss of its query points."""
    experiment = build_experiment(_config(inner={"loss": loss, "alpha": {"init": 0.1}}))
    meta_params = experiment.init_meta_params([0])
    batch = experiment.sample([make_generator(0, "x")])

    def error(params: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> Any:
        return formula(torch.tanh(x @ params[0] + params[1]) @ params[2] + params[3] - y)

    expected = []
    for task in range(3):
        theta = [value[0].clone().requires_grad_() for value in meta_params.params.values()]
        gradients = torch.autograd.grad(error(theta, batch.support.x[0, task], batch.support.y[0, task]), theta)
        adapted = [value - 0.1 * gradient for value, gradient in zip(theta, gradients, strict=True)]
        expected.append(error(adapted, batch.query.x[0, task], batch.query.y[0, task]).item())
    losses = experiment.algorithm.meta_gradient(meta_params, batch, 0)[0]
    assert losses[0].tolist() == pytest.approx(expected, rel=1e-12)


def test_inner_steps_after_the_last_alpha_reuse_it_stop_or_raise() -> None:
    paths = {}
    support = build_experiment(_config()).sample([make_generator(0, "x")]).support
    for after in "hold", "stop":
        alpha = {"per_step": True, "learned": True, "after_last_step": after}
        experiment = build_experiment(_config(inner={"steps": 2, "alpha": alpha}))
        meta_params = expand_to_tasks(experiment.init_meta_params([0]), 3)
        paths[after] = list(experiment.algorithm.unroll(meta_params, support, 3))
    assert torch.equal(paths["stop"][3]["head.w"], paths["stop"][2]["head.w"])
    assert torch.equal(paths["hold"][2]["head.w"], paths["stop"][2]["head.w"])
    assert not torch.equal(paths["hold"][3]["head.w"], paths["hold"][2]["head.w"])
    experiment = build_experiment(_config(inner={"steps": 2, "alpha": {"per_step": True, "learned": True}}))
    with pytest.raises(ValueError, match="inner step 3 has no step size: 2 were learned"):
        list(experiment.algorithm.unroll(meta_params, support, 3))


def test_step_sizes_are_alphas_times_their_scale() -> None:
    """Initially 0.01 each, of every layer, times 3."""
    alpha = {"learned": True, "per": "layer", "sign": "positive", "scale": 3}
    experiment = build_experiment(_config(inner={"alpha": alpha}))
    step_sizes = experiment.alphas(experiment.init_meta_params([0]).rule_params)
    assert [value.item() for value in step_sizes.values()] == pytest.approx([0.03] * len(step_sizes))


@pytest.mark.parametrize("sign", ["free", "positive"])
def test_alphas_of_a_range_are_drawn_after_the_network_each_by_itself_and_for_each_seed_alone(sign: str) -> None:
    """0.005 + 0.095 u, u of `torch.rand` in float64; the logarithms are learned where alpha is positive. The network is
    that of a number, and the mean of n draws has the standard deviation 0.095 / sqrt(12 n)."""
    alpha = {"learned": True, "per": "parameter", "per_step": True, "sign": sign}
    inner = {"steps": 3, "alpha": alpha | {"init": [0.005, 0.1]}}
    experiment = build_experiment(_config(model={"hidden": [40, 30]}, inner=inner))
    start = experiment.init_meta_params([3, 8])
    alphas = experiment.alphas(start.rule_params)
    for run, seed in enumerate((3, 8)):
        alone = experiment.init_meta_params([seed])
        generator = make_generator(seed, "init")
        params = experiment.init_params(generator)
        for key, value in params.items():
            expected = 0.005 + 0.095 * torch.rand(3, *value.shape, generator=generator, dtype=torch.float64)
            torch.testing.assert_close(alphas[key][run], expected, rtol=1e-12, atol=0)
            assert torch.equal(start.rule_params[key][run], alone.rule_params[key][0])
            assert torch.equal(start.params[key][run], value)
    values = torch.cat([value.flatten() for value in alphas.values()])
    assert len({*values.tolist()}) == len(values) and values.min() >= 0.005 and values.max() <= 0.1
    assert values.mean().item() == pytest.approx(0.0525, abs=4 * 0.095 / (12 * values.numel()) ** 0.5)


def test_an_alpha_of_a_layer_is_one_draw_and_a_number_draws_nothing() -> None:
    alpha = {"learned": True, "per": "layer"}
    drawn, fixed = (
        build_experiment(_config(inner={"alpha": alpha | {"init": init}})).init_meta_params([0])
        for init in ([0.005, 0.1], [0.01, 0.01])
    )
    assert {key: value.shape for key, value in drawn.rule_params.items()} == {
        "hidden0": (1, 1, 1, 1),
        "head": (1, 1, 1, 1),
    }
    generator = make_generator(0, "init")
    build_experiment(_config()).init_params(generator)
    expected = [0.005 + 0.095 * torch.rand(1, generator=generator, dtype=torch.float64).item() for _ in range(2)]
    assert [value.item() for value in drawn.rule_params.values()] == pytest.approx(expected)
    assert [value.item() for value in fixed.rule_params.values()] == [0.01, 0.01]


def test_gain_query_points_and_oracle_are_those_of_the_config() -> None:
    plain, oracle = build_experiment(_config()), build_experiment(_config(model={"init_gain": 0.5, "oracle": True}))
    for experiment, factor, inputs in ((plain, 1.0, 1), (oracle, 0.5, 4)):
        params = experiment.init_meta_params([0]).params
        assert (
            params["hidden0.w"].shape == (1, inputs, 4)
            and experiment.sample([make_generator(0, "x")]).query.x.shape[-1] == inputs
        )
        assert params["hidden0.w"].abs().max() <= 4 * factor / inputs**0.5
    halved = build_experiment(_config(model={"init_gain": 0.5})).init_meta_params([0]).params
    for key, value in plain.init_meta_params([0]).params.items():
        assert torch.equal(halved[key], value * (0.5 if key.endswith(".w") else 1.0))
    x = (
        build_experiment(_config(tasks={"query_sampling": "stratified", "num_query": 4}))
        .sample([make_generator(0, "x")])
        .query.x
    )
    assert torch.equal(((x + 5) / 2.5).floor().flatten(), torch.arange(4.0, dtype=torch.float64).repeat(3))
