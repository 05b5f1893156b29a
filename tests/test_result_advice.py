"""Advice at the end of a training whose learner is worse than zero, or no better for adapting; none when it is fine."""

import math
from pathlib import Path
from typing import Any

import pytest

from maml_cli.config import Config, override
from maml_cli.runs import EvaluationRecord, metrics
from maml_cli.training.result_advice import result_advice
from tests.conftest import TINY_RUN, Cli

CONSTANT = {"amplitude": 3, "frequency": 0, "phase": -math.pi / 2}
"""Tasks with y = 3 everywhere: zero errs by 9 squared, and by 3 in absolute terms."""


def _advice(folder: Path, *errors: list[float], step: int = 5, **sections: Any) -> str:
    """The advice for runs with validation errors before and after one inner step, as logged at an outer step of 5."""
    config = {"tasks": CONSTANT, "outer": {"steps": 5}, "run": {"eval_tasks": 7, "seeds": len(errors)}}
    for name, values in sections.items():
        config[name] = config.get(name, {}) | values
    by_run = [*errors]
    metrics.write_evaluation(folder, EvaluationRecord(step, 10, 7, *[by_run] * 4))
    return result_advice(folder, Config.model_validate(config))


def test_a_learner_that_adapts_and_beats_zero_needs_no_advice(tmp_path: Path) -> None:
    assert _advice(tmp_path, [9.5, 8.9]) == ""


def test_an_error_above_that_of_zero_is_named_with_both_numbers_and_what_to_try(tmp_path: Path) -> None:
    assert _advice(tmp_path, [12.0, 9.5]) == (
        "after 1 inner step the validation error is 9.5, worse than 9 of predicting zero; try more outer steps "
        "(--set outer.steps=50), a lower alpha (--set inner.alpha.init=0.001), a learned one (--set "
        "inner.alpha.learned=true) or a lower outer learning rate (--set outer.lr=0.0001)"
    )


@pytest.mark.parametrize("after", [2.0, 2.5])
def test_an_error_after_the_trained_steps_that_is_not_below_the_one_before_gains_nothing(
    tmp_path: Path, after: float
) -> None:
    advice = _advice(tmp_path, [2.0, after])
    assert advice.startswith(f"adapting gains nothing: validation error 2 before and {after:g} after 1 inner step; try")


def test_errors_are_absolute_for_a_learner_trained_on_l1(tmp_path: Path) -> None:
    assert "worse than 3 of predicting zero" in _advice(tmp_path, [5.0, 4.0], inner={"loss": "l1"})
    assert _advice(tmp_path, [5.0, 4.0]) == ""


def test_errors_are_means_over_the_seeds_that_did_not_diverge(tmp_path: Path) -> None:
    """(8 + 9) / 2 is below 9; 8, 11 and one that diverged are not, nor is an error that overflowed."""
    assert _advice(tmp_path, [12.0, 8.0], [12.0, 9.0]) == ""
    assert "error is 9.5" in _advice(tmp_path, [12.0, 8.0], [12.0, 11.0], [math.nan, math.nan])
    assert "error is infinite, worse than 9" in _advice(tmp_path, [12.0, math.inf])


@pytest.mark.parametrize(
    ("errors", "sections"),
    [
        ([2.0, 99.0], {"outer": {"meta_gradient": "joint"}}),  # adapts in evaluations alone
        ([2.0, 2.0], {"model": {"oracle": True}}),  # knows the task already
    ],
)
def test_methods_that_need_not_adapt_are_not_told_that_they_do_not(
    tmp_path: Path, errors: list[float], sections: dict[str, Any]
) -> None:
    assert _advice(tmp_path, errors, **sections) == ""


def test_methods_that_adapt_otherwise_are_judged_too_and_offered_what_they_accept(tmp_path: Path) -> None:
    advice = _advice(tmp_path, [2.0, 2.0], outer={"meta_gradient": "reptile", "steps": 5})
    assert "adapting gains nothing" in advice and "inner.alpha.learned" not in advice
    assert "worse than 9" in _advice(tmp_path, [12.0, 10.0], model={"oracle": True})


def test_without_a_validation_after_the_last_outer_step_there_is_no_advice(tmp_path: Path) -> None:
    assert _advice(tmp_path, [12.0, 9.5], step=4) == ""
    (tmp_path / "metrics.jsonl").unlink()
    assert result_advice(tmp_path, Config()) == ""


def test_the_advice_is_printed_at_the_end_of_a_training_unless_it_is_quiet(cli: Cli) -> None:
    """An alpha of 50: adapting multiplies the error."""
    command = ["train", "-c", "smoke", *TINY_RUN, "-s", "inner.alpha.init=50"]
    *_, advice, following = cli(*command).err.splitlines()
    assert advice.startswith("after 1 inner step the validation error is ") and following.startswith("next: ")
    config = Config.from_yaml("smoke", "inner.alpha.init=50")
    settings = [part.split(")")[0] for part in advice.split("--set ")[1:]]
    assert len(settings) == 4 and all(override(config, [setting], label="config") != config for setting in settings)
    assert cli(*command, "--quiet").err == ""
    assert "predicting zero" not in cli("train", "-c", "smoke", "-s", "run.engine=eager").err
