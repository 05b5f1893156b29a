"""Keys of the config that act in training: noise, schedule, clipping, the optimiser of alpha, validation."""

from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.config import Config
from maml_cli.core import MetaParams, expand_to_tasks
from maml_cli.engines import make_engine
from maml_cli.evaluation import sample_validation_tasks, summarise_tasks
from maml_cli.evaluation.task_errors import adapted_errors
from maml_cli.experiment import build_experiment
from maml_cli.runs import checkpoint, create_run, read_lines
from maml_cli.training import RunGroup, init_state, train


def _config(**sections: dict[str, Any]) -> Config:
    base: dict[str, dict[str, Any]] = {
        "model": {"hidden": [4], "activation": "tanh"},
        "outer": {"steps": 6, "tasks_per_step": 3},
        "run": {"dtype": "float64", "device": "cpu", "log_every": 1, "eval_every": 3, "eval_tasks": 4},
    }
    return Config.model_validate({k: base.get(k, {}) | sections.get(k, {}) for k in {*base, *sections}})


def _train(config: Config, run: Path) -> tuple[MetaParams, list[dict[str, Any]]]:
    create_run(run, name="x", config=config)
    experiment = build_experiment(config)
    state = init_state(config, experiment)
    train(config, [RunGroup(config, experiment, state, make_engine("eager", config, experiment))], run)
    return state.meta_params, read_lines(run / "metrics.jsonl")


def test_weight_noise_acts_in_training(tmp_path: Path) -> None:
    """The tasks of the first step are the same; its loss, at parameters with noise, is not."""
    losses = {}
    for noise in (0.0, 0.1):
        _, records = _train(_config(outer={"weight_noise": noise}), tmp_path / str(noise))
        losses[noise] = next(record["loss"] for record in records if "loss" in record)
    assert losses[0.0] != losses[0.1] and losses[0.1] == pytest.approx(losses[0.0], rel=0.5)


def test_a_positive_alpha_is_logged_as_alpha_and_not_as_its_logarithm(tmp_path: Path) -> None:
    alpha = {"init": 0.05, "learned": True, "sign": "positive"}
    meta_params, records = _train(_config(inner={"alpha": alpha}), tmp_path / "run")
    logged = [record["alpha"]["alpha"][0] for record in records if "alpha" in record]
    assert logged[-1] == pytest.approx(meta_params.rule_params["alpha"].exp().item()) and 0.04 < logged[0] < 0.06


def test_the_schedule_and_the_clip_act_in_training(tmp_path: Path) -> None:
    """With SGD of rate 1 a step moves by the clipped norm times the schedule: (1 + cos(pi t / 6)) / 2 * 1e-3."""
    outer = {"optimizer": "sgd", "lr": 1.0, "clip_norm": 1e-3, "schedule": "cosine"}
    config = _config(outer=outer, run={"checkpoint_every": 1})
    _, records = _train(config, tmp_path / "run")
    assert min(record["grad_norm"] for record in records if "grad_norm" in record) > 1e-3

    def params(step: int) -> torch.Tensor:
        contents = checkpoint.decode((tmp_path / "run" / "checkpoints" / f"step-{step:08d}.pt").read_bytes())
        return torch.cat([value.flatten() for value in contents["meta_params"]["params"].values()])

    for step in range(6):
        scale = (1 + torch.cos(torch.tensor(torch.pi * step / 6))).item() / 2
        assert (params(step + 1) - params(step)).norm().item() == pytest.approx(1e-3 * scale, rel=1e-6)


@pytest.mark.parametrize(
    ("alpha", "movement"),
    [
        ({"optimizer": "adam", "lr": 1e-4}, lambda gradient: -1e-4 * (1 if gradient > 0 else -1)),
        ({"optimizer": "sgd", "lr": 1e-5}, lambda gradient: -1e-5 * gradient),
        ({}, lambda gradient: -1e-3 * gradient),
    ],
)
def test_alpha_has_its_own_optimiser_and_rate(alpha: dict[str, Any], movement: Any, tmp_path: Path) -> None:
    """Outside SGD of 1e-3. The first step of Adam is its rate, against the sign of the gradient."""
    config = _config(
        inner={"alpha": {"init": 0.05, "learned": True} | alpha},
        outer={"optimizer": "sgd", "lr": 1e-3, "steps": 1},
    )
    meta_params, records = _train(config, tmp_path / "run")
    logged = next(record for record in records if "alpha" in record)
    assert logged["alpha"]["alpha"] == [meta_params.rule_params["alpha"].item()]
    gradient = logged["alpha_grad"]["alpha"][0]
    assert meta_params.rule_params["alpha"].item() - 0.05 == pytest.approx(movement(gradient), rel=1e-6)


def test_logged_validation_errors_are_those_of_the_validation_tasks(tmp_path: Path) -> None:
    config = _config(run={"seed": 4})
    meta_params, records = _train(config, tmp_path / "run")
    experiment = build_experiment(config)
    tasks = sample_validation_tasks(experiment.family, [4], num_tasks=4, num_shots=10)
    errors = adapted_errors(experiment, tasks, lambda count: expand_to_tasks(meta_params, count), num_runs=1, steps=1)
    logged = records[-1]["eval"]
    assert records[-1]["step"] == 6 and logged["shots"] == 10 and logged["num_tasks"] == 4
    for name in "grid", "query":
        for measure in "mse", "mae":
            expected = [getattr(getattr(summarise_tasks(step), name), measure).mean for step in errors]
            assert logged[f"{name}_{measure}"] == pytest.approx(expected, rel=1e-12)
