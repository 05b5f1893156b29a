"""Finite differences estimate their own error, and hold meta-gradients to it."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from maml_cli.checks import gradients
from maml_cli.checks.finite_differences import Derivative, derivative
from maml_cli.config import Config, override
from maml_cli.core import MetaParams, TaskBatch, map_tensors
from maml_cli.experiment import Experiment

BY_HAND: dict[str, tuple[Callable[[float], float], float]] = {
    "constant": (lambda t: 7.0, 0.0),
    "exponential": (lambda t: math.exp(3 * t), 3.0),
    "fast sine": (lambda t: math.sin(1000 * t), 1000.0),
    "large offset": (lambda t: 1e6 + math.sin(t), 1.0),
    "kink at 1e-2": (lambda t: 2 * t + max(0.0, t - 1e-2), 2.0),
    "kink at 1e-5": (lambda t: 2 * t + max(0.0, t - 1e-5), 2.0),
    "jumps every 3e-6": (lambda t: math.sin(t) + 0.02 * round(t / 3e-6), 1.0),
    "a jump as tanh of 1e5 t": (lambda t: t + math.tanh(1e5 * t + 2), 1 + 1e5 / math.cosh(2) ** 2),
    "offset of 1e10, whose rounding is the noise": (lambda t: 1e10 + 0.7 * t, 0.7),
    "noise of 1e-10": (lambda t: math.sin(t) + 1e-10 * math.sin(1e15 * t), 1.0),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_estimated_error_bounds_the_true_one_and_is_small(name: str) -> None:
    function, exact = BY_HAND[name]
    result = derivative(function)
    assert abs(result.value - exact) <= result.error
    assert result.error < (1e-6 if "noise" not in name else 1e-3) * max(1.0, exact)


SMALL = ["model.hidden=[8, 6]"]
LEARNERS: dict[str, list[str]] = {
    "Adam": ["inner.optimizer=adam"],
    "Adam, 2 steps": ["inner.optimizer=adam", "inner.steps=2"],
    "Adam, 3 steps": ["inner.optimizer=adam", "inner.steps=3"],
    "Adam, seed 3": [*SMALL, "inner.optimizer=adam", "inner.steps=2", "run.seed=3"],
    "Adam, seed 4": [*SMALL, "inner.optimizer=adam", "run.seed=4"],
    "Adam, silu": [*SMALL, "inner.optimizer=adam", "model.activation=silu"],
    "Adam, sine": [*SMALL, "inner.optimizer=adam", "model.activation=sin"],
    "Adam, huber": [*SMALL, "inner.optimizer=adam", "inner.loss=huber", "inner.steps=2"],
    "Adam, curvature": [*SMALL, "inner.optimizer=adam", "inner.curvature=kronecker"],
    "Adam, context": [*SMALL, "inner.optimizer=adam", "model.num_context=2", "inner.adapt=context"],
    "SGD": [],
    "SGD, 3 steps": [*SMALL, "inner.steps=3"],
    "SGD, huber and gelu": [*SMALL, "inner.loss=huber", "model.activation=gelu", "inner.steps=2"],
    "SGD, large step": [*SMALL, "inner.alpha.init=0.2", "inner.steps=3"],
}


def _learner(changes: list[str]) -> tuple[Experiment, MetaParams, TaskBatch]:
    """The quickstart, with alpha learned and `changes`, as the checks see it."""
    config = override(Config(), ["inner.alpha.learned=true", *changes], label="test")
    return gradients.initial_state(gradients.smooth(config))


@pytest.mark.parametrize("name", LEARNERS)
def test_a_correct_gradient_passes_and_one_that_is_off_by_1e_minus_4_does_not(name: str) -> None:
    experiment, meta_params, batch = _learner(LEARNERS[name])

    def wrong(*arguments: Any) -> Any:
        losses, gradient = experiment.algorithm.meta_gradient(*arguments)
        return losses, map_tensors(lambda value: value * (1 + 1e-4), gradient)

    mutant = experiment._replace(algorithm=experiment.algorithm._replace(meta_gradient=wrong))
    for learner, passes in ((experiment, True), (mutant, False)):
        cases = list(gradients.check_derivatives(learner, meta_params, batch, ("params", "rule_params")))
        assert [case.passed for case in cases] == [passes, passes], cases


def test_no_tolerance_exceeds_1e_minus_6(monkeypatch: pytest.MonkeyPatch) -> None:
    """However unreliable the finite difference: then a correct gradient may fail, and no wrong one passes."""
    experiment, meta_params, batch = _learner([])
    monkeypatch.setattr(gradients, "derivative", lambda function: Derivative(0.5, 100.0))
    (case,) = gradients.check_derivatives(experiment, meta_params, batch, ("params",))
    assert case.tolerance == 1e-6 and not case.passed
