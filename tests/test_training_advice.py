"""Advice after divergence: settings that the config accepts and that can act on the value that was not finite."""

import re
from typing import Any

import pytest

from maml_cli.config import Config, load_config, override, presets, to_dict
from maml_cli.errors import DivergedError
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


def test_the_first_advice_for_targets_that_overflow_prevents_the_divergence(cli: Cli) -> None:
    overflowing = ["train", "-c", "smoke", *TINY_RUN, "-q", "-s", "tasks.amplitude=1e30"]
    diverged = cli(*overflowing)
    assert diverged.code == 5
    setting = re.findall(r"\(--set ([^)]*)\)", diverged.err)[0]
    assert cli(*overflowing, "-s", setting).code == 0
