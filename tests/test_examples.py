"""The worked examples hold, and notice what they are there to notice."""

import pytest

from maml_cli.checks import Case, gradients
from maml_cli.checks.worked_examples import TOLERANCE, worked_examples
from maml_cli.config import Config
from maml_cli.core import inner_loop, update_rules

EXAMPLES = {case.name: case for case in worked_examples()}

# The numbers, written down a second time from the algebra in the docstrings of maml_cli/examples.py.
EXACT = {
    "w(x): dL/dx before adapting": -2.0,
    "w(x): w after 1 step": 1.2,
    "w(x): w after 2 steps": 1.44,
    "w(x): dL/dx after 1 step": -2 * 1.2 * 1.6,
    "w(x): dL/dx after 1 step, first order": -2 * 1.2**2,
    "w(x): loss after 2 steps": 1.44**2 - 2,
    "w(x): dL/dx after 2 steps": 2 * 1.44 * 2.4,
    "w(x): dL/dalpha after 1 step": -2 * 1.2 * 2,
    "a^2 + b^2: a after 1 step": 2 + 1.2 * 0.4,
    "a^2 + b^2: b after 1 step": 3 + 1.2 * 0.6,
    "a^2 + b^2: d a1 / d a0": 1 - 6 * 0.01 * 4 - 2 * 0.01 * 9 + 2 * 0.1 * 2.5,
    "a^2 + b^2: d a1 / d b0": -4 * 0.01 * 2 * 3,
    "a^2 + b^2: d b1 / d a0": -4 * 0.01 * 2 * 3,
    "a^2 + b^2: d b1 / d b0": 1 - 6 * 0.01 * 9 - 2 * 0.01 * 4 + 2 * 0.1 * 2.5,
    "a^2 + b^2: Hessian times query gradient, a": -0.08 * -0.24855552 + 0.24 * -0.37283328,
    "a^2 + b^2: Hessian times query gradient, b": 0.24 * -0.24855552 + 0.12 * -0.37283328,
    "a^2 + b^2: loss after 1 step": 0.5 * ((2.48**2 + 3.72**2) * 0.1 - 2.5) ** 2,
    "a^2 + b^2: meta-gradient of a, second order": -0.1789599744,
    "a^2 + b^2: meta-gradient of b, second order": -0.2684399616,
    "a^2 + b^2: meta-gradient of a, first order": -0.24855552,
    "a^2 + b^2: meta-gradient of b, first order": -0.37283328,
    "a^2 + b^2: meta-gradient of alpha": -0.3877466112,
    "a^2 + b^2: a after an outer step": 2.1789599744,
    "a^2 + b^2: b after an outer step": 3.2684399616,
    "2 x^3: value": -16.0,
    "2 x^3: derivative 1": 24.0,
    "2 x^3: derivative 2": -24.0,
    "2 x^3: derivative 3": 12.0,
    "2 x^3: derivative 4": 0.0,
    "neuron: adapted weight of D1": 0.6,
    "neuron: adapted weight of D2": -8.2,
    "neuron: its derivative, D1": 1 - 0.2 * (4 + 9),
    "neuron: its derivative, D2": 1 - 0.2 * (25 + 36),
    "neuron: meta-gradient of D1, second order": (1 - 0.2 * 13) * 2 * (0.6 - 2),
    "neuron: meta-gradient of D2, second order": (1 - 0.2 * 61) * 8 * (4 * -8.2 - 1),
    "neuron: theta after outer step, second order": 1 - 0.5 * (4.48 + 3028.48),
    "neuron: meta-gradient of D1, first order": -2.8,
    "neuron: meta-gradient of D2, first order": -270.4,
    "neuron: theta after outer step, first order": 1 - 0.5 * (-2.8 - 270.4),
    "neuron: meta-gradient of alpha, D1": 11.2,
    "neuron: meta-gradient of alpha, D2": 24876.8,
    "neuron: proximal minimum of D1": 6 / 7,
    "neuron: proximal minimum of D2": 0.25806451612903225,
    "neuron: implicit meta-gradient of D1": -16 / 7 / 14,
    "neuron: implicit meta-gradient of D2": 8 / 31 / 62,
}


@pytest.mark.parametrize("name", EXACT)
def test_worked_example(name: str) -> None:
    case = EXAMPLES[name]
    assert case.tolerance == TOLERANCE == 1e-9
    assert case.expected == pytest.approx(EXACT[name], abs=1e-9)
    assert abs(case.obtained - EXACT[name]) < 1e-9
    assert case.passed


def test_no_example_is_left_out() -> None:
    assert EXAMPLES.keys() == EXACT.keys()


def test_a_number_that_is_off_or_not_a_number_does_not_pass() -> None:
    assert not Case("x", 1.0, 1.0 + 1.1e-9).passed
    assert not Case("x", 1.0, float("nan")).passed


def test_first_order_by_accident_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classic bug: gradients taken without create_graph."""
    real = inner_loop._support_gradients
    monkeypatch.setattr(
        inner_loop,
        "_support_gradients",
        lambda loss, params, support, adapted, _: real(loss, params, support, adapted, True),
    )
    wrong = {
        case.name for case in gradients.run_checks(Config.model_validate({"model": {"hidden": [4]}})) if not case.passed
    }
    assert "neuron: meta-gradient of D1, second order" in wrong
    assert "w(x): dL/dx after 1 step" in wrong
    assert "network: slope in params, finite differences" in wrong
    assert "network: second order, distance to torch.func" in wrong


def test_an_alpha_that_is_off_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_rule(groups, **options):  # type: ignore[no-untyped-def]
        def update(rule, slopes, step, state):  # type: ignore[no-untyped-def]
            return {key: 1.01 * rule[groups[key]][0] * g for key, g in slopes.items()}, state

        return update

    monkeypatch.setattr(update_rules, "scale_by_alpha", wrong_rule)
    wrong = {
        case.name for case in gradients.run_checks(Config.model_validate({"model": {"hidden": [4]}})) if not case.passed
    }
    assert {"neuron: adapted weight of D1", "network: second order, distance to torch.func"} <= wrong


def test_tasks_that_share_a_gradient_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = inner_loop.unroll

    def mean_inside(loss, *args, **kwargs):  # type: ignore[no-untyped-def]
        return real(lambda params, split: loss(params, split) / split.x.shape[1], *args, **kwargs)

    monkeypatch.setattr(inner_loop, "unroll", mean_inside)
    wrong = {
        case.name for case in gradients.run_checks(Config.model_validate({"model": {"hidden": [4]}})) if not case.passed
    }
    assert "network: change in a task without the others" in wrong
