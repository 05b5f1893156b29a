"""The worked examples hold, and fail for the faults that they are there for."""

import pytest

from maml_cli.checks import Case, gradients
from maml_cli.checks.worked_examples import TOLERANCE, worked_examples
from maml_cli.config import Config
from maml_cli.core import inner_loop, update_rules

EXAMPLES = {case.name: case for case in worked_examples()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_example(name: str) -> None:
    case = EXAMPLES[name]
    assert case.tolerance == TOLERANCE == 1e-9
    assert case.obtained == pytest.approx(case.expected, abs=1e-9) and case.passed


def test_the_four_examples_have_45_numbers_with_a_name_each() -> None:
    """7 + 1 of w(x); of a^2 + b^2 2 * 3 after a step, 2 Hessian products, 4 in either order and 4 more; 5 of the cubic;
    of the neuron 2 * 2, 2 * 3 in either order, 2 of alpha, and 2 * 2 implicit ones."""
    assert len(worked_examples()) == len(EXAMPLES) == 45 == 8 + (6 + 2 + 4 + 4) + 5 + (4 + 6 + 2 + 4)


def test_a_number_that_is_off_or_not_a_number_does_not_pass() -> None:
    assert not Case("x", 1.0, 1.0 + 1.1e-9).passed
    assert not Case("x", 1.0, float("nan")).passed


def _failed() -> set[str]:
    """The names of the checks that fail for a small learner."""
    config = Config.model_validate({"model": {"hidden": [4]}})
    return {case.name for case in gradients.run_checks(config) if not case.passed}


def test_gradients_without_create_graph_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classic bug: second order that is first order."""
    real = inner_loop._support_gradients
    monkeypatch.setattr(
        inner_loop,
        "_support_gradients",
        lambda loss, params, support, adapted, _: real(loss, params, support, adapted, True),
    )
    failed = _failed()
    assert "neuron: meta-gradient of D1, second order" in failed
    assert "w(x): dL/dx after 1 step" in failed
    assert "network: gradient of params, finite differences" in failed
    assert "network: second order, distance to torch.func" in failed


def test_an_alpha_that_is_off_by_a_percent_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_rule(groups, **options):  # type: ignore[no-untyped-def]
        def update(rule_params, grads, step, state):  # type: ignore[no-untyped-def]
            return {key: 1.01 * rule_params[groups[key]][0] * g for key, g in grads.items()}, state

        return update

    monkeypatch.setattr(update_rules, "scale_by_alpha", wrong_rule)
    failed = _failed()
    assert {"neuron: adapted weight of D1", "network: second order, distance to torch.func"} <= failed


def test_an_inner_loss_averaged_over_tasks_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    real = inner_loop.unroll

    def average_over_tasks(loss, *args, **kwargs):  # type: ignore[no-untyped-def]
        return real(lambda params, points: loss(params, points) / points.x.shape[1], *args, **kwargs)

    monkeypatch.setattr(inner_loop, "unroll", average_over_tasks)
    failed = _failed()
    assert "network: change in a task without the others" in failed
