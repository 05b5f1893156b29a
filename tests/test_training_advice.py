"""Advice after divergence: settings that the config accepts and that can act on the value that was not finite."""

import re
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maml_cli.config import Config, load_config, override, presets, to_dict
from maml_cli.dev.soak.configs import random_config
from maml_cli.errors import DivergedError, DivergenceCause
from maml_cli.training.advice import divergence_advice, divergence_changes
from tests.conftest import TINY_RUN, Cli

FIRST_LOSS = DivergedError("diverged", outer_step=1, cause="query_loss")
FIRST_GRADIENT = DivergedError("diverged", outer_step=1, cause="gradient")
LATER = DivergedError("diverged", outer_step=7, cause="gradient")


def _keys(config: Config, error: DivergedError) -> list[str]:
    return [change.setting.split("=")[0] for change in divergence_changes(config, error)]


@pytest.mark.parametrize("error", [FIRST_LOSS, FIRST_GRADIENT, LATER], ids=["first loss", "first gradient", "later"])
@pytest.mark.parametrize("preset", presets.names())
def test_each_piece_of_advice_is_a_setting_that_changes_the_config(preset: str, error: DivergedError) -> None:
    config = load_config(preset).config
    changes = divergence_changes(config, error)
    assert changes
    for change in changes:
        assert to_dict(override(config, [change.setting], label="config")) != to_dict(config), change


def test_advice_at_the_first_outer_step_does_not_change_the_outer_update() -> None:
    config = Config.model_validate({"inner": {"steps": 5}, "tasks": {"amplitude": [1, 200]}})
    assert _keys(config, FIRST_LOSS) == ["tasks.amplitude", "inner.alpha.init", "inner.steps", "model.init_gain"]
    assert divergence_advice(config, FIRST_LOSS) == (
        "try smaller tasks (--set tasks.amplitude=[0.025,5]), a lower alpha (--set inner.alpha.init=0.001), "
        "fewer inner steps (--set inner.steps=2) or a smaller initialisation (--set model.init_gain=0.1)"
    )
    assert "outer.clip_task_norm" in _keys(config, FIRST_GRADIENT)
    assert not {"outer.lr", "outer.clip_norm"} & {*_keys(config, FIRST_GRADIENT)}


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"inner": {"alpha": {"learned": True, "init": [0.005, 0.1]}}},
            ["inner.alpha.init=[0.0005,0.01]", "outer.lr=0.0001", "outer.clip_norm=1", "outer.clip_task_norm=10"],
        ),
        ({}, ["inner.alpha.init=0.001", "outer.lr=0.0001", "outer.clip_norm=1", "outer.clip_task_norm=10"]),
        (
            {"outer": {"clip_norm": 2, "clip_task_norm": 5}},
            ["inner.alpha.init=0.001", "outer.lr=0.0001", "outer.clip_norm=0.2", "outer.clip_task_norm=0.5"],
        ),
        (
            {"inner": {"alpha": {"learned": True, "lr": 1e-2}}},
            [
                "inner.alpha.init=0.001",
                "outer.lr=0.0001",
                "inner.alpha.lr=0.001",
                "outer.clip_norm=1",
                "outer.clip_task_norm=10",
            ],
        ),
    ],
)
def test_advice_at_later_outer_steps_is_a_tenth_of_rates_and_limits(
    sections: dict[str, Any], expected: list[str]
) -> None:
    changes = divergence_changes(Config.model_validate(sections), LATER)
    assert [change.setting for change in changes] == expected


def test_advice_for_joint_training_leaves_the_inner_loop_alone() -> None:
    """Joint training takes no inner steps, so that alpha cannot act."""
    config = load_config("joint-10shot").config
    assert not any(key.startswith("inner.") for key in _keys(config, FIRST_LOSS) + _keys(config, LATER))


@settings(max_examples=100)
@given(
    st.randoms(use_true_random=False).map(random_config), st.sampled_from(get_args(DivergenceCause)), st.integers(0, 3)
)
def test_every_config_has_advice_that_it_accepts(config: Config, cause: DivergenceCause, outer_step: int) -> None:
    error = DivergedError("diverged", outer_step=outer_step, cause=cause)
    for change in divergence_changes(config, error):
        override(config, [change.setting], label="config")
    assert divergence_advice(config, error)


def test_advice_is_float64_or_nothing_where_no_other_change_is_accepted() -> None:
    """Joint training takes no inner steps, and a tenth of the smallest positive number is zero."""
    config = Config.model_validate({"outer": {"meta_gradient": "joint"}, "model": {"init_gain": 5e-324}})
    assert divergence_advice(config, FIRST_LOSS) == "try the range of float64 (--set run.dtype=float64)"
    config = override(config, ["run.dtype=float64"], label="config")
    assert divergence_advice(config, FIRST_LOSS) == "no change of a single key of the config is known to prevent that"


@pytest.mark.parametrize("change", ["tasks.amplitude=1e30", "tasks.noise=1e30", "outer.weight_noise=1e6"])
def test_the_first_advice_for_values_that_overflow_prevents_the_divergence(cli: Cli, change: str) -> None:
    overflowing = ["train", "-c", "smoke", *TINY_RUN, "-q", "-s", change]
    diverged = cli(*overflowing)
    assert diverged.code == 5
    setting = re.findall(r"\(--set ([^)]*)\)", diverged.err)[0]
    assert cli(*overflowing, "-s", setting).code == 0
