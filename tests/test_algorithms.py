"""Every combination of the axes, against an independent implementation; and relations that hold between them."""

from functools import partial
from typing import Any

import pytest
import torch

from maml_cli.checks import gradients, torch_func
from maml_cli.config import Config
from maml_cli.core import MetaParams, Points, adapted_keys, expand_to_tasks, tensors
from maml_cli.core.update_rules import alpha_groups
from maml_cli.experiment import build_experiment
from tests.conformance import COMBINATIONS, STEP, combined_config, names_to_test, perturbed, sample_batch

KEYS = ["hidden0.w", "hidden0.b", "hidden1.w", "hidden1.b", "head.w", "head.b"]


def _config(**inner: Any) -> Config:
    activation, outer, model = inner.pop("activation", "tanh"), inner.pop("outer", {}), inner.pop("model", {})
    model = {"hidden": [5, 4], "activation": activation} | model
    return Config.model_validate({"model": model, "inner": inner, "outer": outer, "run": {"dtype": "float64"}})


@pytest.mark.parametrize("name", names_to_test())
def test_meta_gradient_is_that_of_torch_func(name: str) -> None:
    """For two runs, to 1e-10, by code that shares nothing with the inner loop; the arguments do not change."""
    config = combined_config(name)
    experiment = build_experiment(config)
    meta_params, batch = perturbed(experiment.init_meta_params([0, 1])), sample_batch(experiment, (0, 1), num_tasks=3)
    before = [value.clone() for value in (*tensors(meta_params), *batch.support, *batch.query)]
    losses, gradient = experiment.algorithm.meta_gradient(meta_params, batch, STEP)
    expected = torch_func.torch_func_gradient(config, experiment, meta_params, batch, STEP)
    assert losses.shape == (2, 3) and losses.isfinite().all() and not losses.requires_grad
    learned = {key for keys in experiment.learned_keys.values() for key in keys}
    assert gradient.params.keys() == meta_params.params.keys() and gradient.rule_params.keys() == learned
    assert expected.params.keys() == meta_params.params.keys() and expected.rule_params.keys() == learned
    for start, actual, independent in zip(meta_params, gradient, expected, strict=True):
        for key, value in actual.items():
            assert value.shape == (2, 3, *start[key].shape[1:])
            torch.testing.assert_close(value, independent[key], rtol=1e-10, atol=1e-12)
    same_losses, same_gradient = experiment.algorithm.meta_gradient(meta_params, batch, STEP)
    assert torch.equal(losses, same_losses)
    assert all(torch.equal(a, b) for a, b in zip(tensors(gradient), tensors(same_gradient), strict=True))
    after = [*tensors(meta_params), *batch.support, *batch.query]
    assert all(torch.equal(a, b) and not b.requires_grad for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["all-LSLR-second", "head-Meta-SGD-second", "context2-Meta-Curvature-second"])
@pytest.mark.parametrize("group", ["params", "rule_params"])
def test_meta_gradient_is_the_derivative_of_the_query_loss(name: str, group: str) -> None:
    """Along a random direction, by finite differences of order four."""
    sections = COMBINATIONS[name]
    experiment = build_experiment(_config(**sections["inner"], model=sections["model"]))
    meta_params, batch = experiment.init_meta_params([0]), sample_batch(experiment)
    gradient = getattr(experiment.algorithm.meta_gradient(meta_params, batch, 0)[1], group)
    direction = gradients.random_direction(gradient)
    expected = gradients.finite_difference(experiment, meta_params, batch, direction, group=group).value
    assert gradients.directional_derivative(gradient, direction) == pytest.approx(expected, abs=1e-9, rel=1e-7)


@pytest.mark.parametrize("adapt", ["all", "head", "body"])
def test_fomaml_is_the_query_gradient_at_the_adapted_params(adapt: str) -> None:
    """Finn et al. 2017, section 5.2: the derivative of the adapted in the initial parameters counts as the identity."""
    experiment = build_experiment(_config(order="first", steps=3, adapt=adapt))
    meta_params, batch = experiment.init_meta_params([0]), sample_batch(experiment)
    with torch.no_grad():
        *_, adapted = experiment.algorithm.unroll(expand_to_tasks(meta_params, 4), batch.support, 3)
    expected = torch.func.grad(lambda params: experiment.loss(params, batch.query).sum())(adapted)
    gradient = experiment.algorithm.meta_gradient(meta_params, batch, 0)[1].params
    for key, value in expected.items():
        torch.testing.assert_close(gradient[key], value, rtol=1e-12, atol=1e-14)


def test_one_alpha_for_many_parameters_has_the_sum_of_their_gradients() -> None:
    """By the chain rule; parameter -> tensor -> layer -> scalar, each a sum over the finer ones."""
    gradients = {}
    for per in "scalar", "layer", "tensor", "parameter":
        experiment = build_experiment(_config(steps=2, alpha={"per": per, "learned": True}))
        meta_params = experiment.init_meta_params([0])
        gradients[per] = experiment.algorithm.meta_gradient(meta_params, sample_batch(experiment), 0)[1].rule_params
    close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-12)
    for key in KEYS:
        total = gradients["parameter"][key].sum(dim=(-2, -1), keepdim=True)
        close(gradients["tensor"][key], total)
    for layer in "hidden0", "hidden1", "head":
        total = gradients["tensor"][f"{layer}.w"] + gradients["tensor"][f"{layer}.b"]
        close(gradients["layer"][layer], total)
    close(gradients["scalar"]["alpha"], sum(gradients["layer"].values()))


def test_a_shared_alpha_has_the_sum_of_the_gradients_of_the_steps() -> None:
    shared, own = (
        build_experiment(_config(steps=3, alpha={"learned": True, "per_step": per_step})) for per_step in (False, True)
    )
    batch = sample_batch(shared)
    total = shared.algorithm.meta_gradient(shared.init_meta_params([0]), batch, 0)[1].rule_params["alpha"]
    by_step = own.algorithm.meta_gradient(own.init_meta_params([0]), batch, 0)[1].rule_params["alpha"]
    assert by_step.shape == (1, 4, 3, 1, 1)
    torch.testing.assert_close(total, by_step.sum(dim=2, keepdim=True), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_gradient_of_a_task_does_not_depend_on_the_number_of_tasks(activation: str) -> None:
    """Inner losses are not averaged over tasks: alpha means the same for 4 tasks as for 1."""
    experiment = build_experiment(_config(steps=2, activation=activation, alpha={"learned": True}))
    meta_params, batch = experiment.init_meta_params([0]), sample_batch(experiment)
    together = experiment.algorithm.meta_gradient(meta_params, batch, 0)[1]
    alone = batch._replace(
        support=Points(*(values[:, 2:3] for values in batch.support)),
        query=Points(*(values[:, 2:3] for values in batch.query)),
    )
    for single, all_tasks in zip(
        tensors(experiment.algorithm.meta_gradient(meta_params, alone, 0)[1]), tensors(together), strict=True
    ):
        torch.testing.assert_close(single, all_tasks[:, 2:3], rtol=1e-10, atol=1e-13)


def test_runs_trained_side_by_side_have_the_gradients_of_single_runs() -> None:
    experiment = build_experiment(_config(steps=2, alpha={"learned": True, "per": "parameter", "per_step": True}))
    together = experiment.algorithm.meta_gradient(
        experiment.init_meta_params([3, 8]), sample_batch(experiment, (3, 8)), 0
    )
    for run, seed in enumerate((3, 8)):
        meta_params, batch = experiment.init_meta_params([seed]), sample_batch(experiment, (seed,))
        losses, gradients = experiment.algorithm.meta_gradient(meta_params, batch, 0)
        torch.testing.assert_close(together[0][run], losses[0], rtol=1e-12, atol=1e-14)
        for actual, expected in zip(tensors(together[1]), tensors(gradients), strict=True):
            torch.testing.assert_close(actual[run], expected[0], rtol=1e-10, atol=1e-13)


def test_a_fixed_alpha_has_no_gradient() -> None:
    experiment = build_experiment(_config())
    meta_params = experiment.init_meta_params([0])
    assert meta_params.rule_params["alpha"].item() == 0.01
    assert experiment.algorithm.meta_gradient(meta_params, sample_batch(experiment), 0)[1].rule_params == {}


def test_inner_steps_change_the_adapted_parameters_and_no_others() -> None:
    assert adapted_keys(KEYS, subset="all") == KEYS
    assert adapted_keys(KEYS, subset="head") == KEYS[4:]
    assert adapted_keys(KEYS, subset="body") == KEYS[:4]
    for subset in "all", "head", "body":
        experiment = build_experiment(_config(adapt=subset))
        meta_params = expand_to_tasks(experiment.init_meta_params([0]), 4)
        _, after = experiment.algorithm.unroll(meta_params, sample_batch(experiment).support, 1)
        changed = {key for key in KEYS if not torch.equal(after[key], meta_params.params[key])}
        assert changed == set(adapted_keys(KEYS, subset=subset))


def test_alphas_have_a_group_and_a_shape_for_each_granularity() -> None:
    assert set(alpha_groups(KEYS, per="scalar").values()) == {"alpha"}
    assert list(dict.fromkeys(alpha_groups(KEYS, per="layer").values())) == ["hidden0", "hidden1", "head"]
    meta_params: MetaParams = build_experiment(
        _config(steps=3, alpha={"per": "parameter", "per_step": True, "learned": True})
    ).init_meta_params([0, 1])
    assert {key: tuple(value.shape) for key, value in meta_params.rule_params.items()} == {
        key: (2, 3, *value.shape[1:]) for key, value in meta_params.params.items()
    }


def test_the_multi_step_loss_is_the_weighted_sum_over_inner_steps() -> None:
    """Its gradient is the sum of those of learners that are trained for 1, 2 and 3 steps, with the same weights."""
    multi_step = build_experiment(_config(steps=3, outer={"multi_step_loss_until": 10}, alpha={"learned": True}))
    meta_params, batch = multi_step.init_meta_params([0]), sample_batch(multi_step)
    for step, weights in {
        0: (1 / 3, 1 / 3, 1 / 3),
        4: (0.2, 0.2, 0.6),
        10: (0.0, 0.0, 1.0),
        99: (0.0, 0.0, 1.0),
    }.items():
        losses, gradient = multi_step.algorithm.meta_gradient(meta_params, batch, step)
        by_steps = []
        for steps in (1, 2, 3):
            shorter = build_experiment(_config(steps=steps, alpha={"learned": True}))
            last, gradients = shorter.algorithm.meta_gradient(meta_params, batch, 0)
            by_steps.append(tensors(gradients))
        torch.testing.assert_close(losses, last)
        for index, actual in enumerate(tensors(gradient)):
            expected = sum(weight * tensors_of[index] for weight, tensors_of in zip(weights, by_steps, strict=True))
            torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_annealing_is_first_order_until_outer_step_5_and_then_second() -> None:
    annealed = build_experiment(_config(steps=2, first_order_until=5))
    meta_params, batch = annealed.init_meta_params([0]), sample_batch(annealed)
    for step, order in {0: "first", 4: "first", 5: "second", 6: "second"}.items():
        gradient = annealed.algorithm.meta_gradient(meta_params, batch, step)[1]
        plain = build_experiment(_config(steps=2, order=order)).algorithm.meta_gradient(meta_params, batch, step)[1]
        assert all(torch.equal(a, b) for a, b in zip(tensors(gradient), tensors(plain), strict=True))
