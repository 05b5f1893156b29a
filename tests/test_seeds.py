"""Seeds side by side: each run is what it is alone, one that diverges is frozen, and errors are over seeds."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.config import Config
from maml_cli.core import tensors
from maml_cli.engines import kernel_build, make_engine
from maml_cli.evaluation import t_interval
from maml_cli.experiment import build_experiment
from maml_cli.runs import create_run, open_checkpoint, read_lines
from maml_cli.training import RunGroup, TrainResult, init_state, train
from tests.conformance import skip_tracing
from tests.conftest import Cli

ENGINES = ["eager", "reference", "compiled", *(["native"] if kernel_build.compiler() else [])]
EVERYTHING: dict[str, Any] = {
    "tasks": {"num_support": 5, "num_query": 4, "noise": 0.1},
    "model": {"hidden": [6, 5], "init": "torch"},
    "inner": {"steps": 2, "alpha": {"learned": True, "per": "parameter", "per_step": True}},
    "outer": {
        "steps": 100,
        "tasks_per_step": 3,
        "schedule": "cosine",
        "weight_noise": 0.01,
        "clip_task_norm": 5.0,
        "clip_norm": 0.5,
    },
    "run": {"device": "cpu", "log_every": 25, "eval_every": 50, "eval_tasks": 4, "checkpoint_every": 50},
}


@pytest.fixture(autouse=True)
def _not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of `compiled` run without torch.compile, which is slow."""
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    skip_tracing(monkeypatch)


def _config(**run: Any) -> Config:
    return Config.model_validate(EVERYTHING | {"run": EVERYTHING["run"] | run})


def _train(config: Config, run: Path, engine: str) -> TrainResult:
    create_run(run, name="x", config=config)
    experiment = build_experiment(config)
    state = init_state(config, experiment)
    return train(config, [RunGroup(config, experiment, state, make_engine(engine, config, experiment))], run)


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("engine", ENGINES)
def test_each_run_of_several_is_the_run_alone(engine: str, dtype: str, rtol: float, tmp_path: Path) -> None:
    """After 100 outer steps: what is learned, and every line of the log."""
    _train(_config(seeds=[3, 8, 5], dtype=dtype, threads=2), tmp_path / "all", engine)
    together = open_checkpoint(tmp_path / "all").contents
    lines = read_lines(tmp_path / "all" / "metrics.jsonl")
    for index, seed in enumerate([3, 8, 5]):
        _train(_config(seed=seed, dtype=dtype), tmp_path / str(seed), engine)
        alone = open_checkpoint(tmp_path / str(seed)).contents
        assert torch.equal(together["generators"][index], alone["generators"][0])
        for group in "params", "rule_params":
            actual = torch.cat([value[index].flatten() for value in together["meta_params"][group].values()])
            expected = torch.cat([value[0].flatten() for value in alone["meta_params"][group].values()])
            assert ((actual - expected).norm() / expected.norm()).item() < rtol
        for line, single in zip(lines, read_lines(tmp_path / str(seed) / "metrics.jsonl"), strict=True):
            for key, value in {key: line[key] for key in ("loss", "grad_norm", "skipped_tasks") if key in line}.items():
                assert value[index] == pytest.approx(single[key], rel=100 * rtol)
            if "alpha" in line:
                assert line["alpha"]["head.w"][index] == pytest.approx(single["alpha"]["head.w"], rel=100 * rtol)
            if "eval" in line:
                assert line["eval"]["grid_mse"][index] == pytest.approx(single["eval"]["grid_mse"], rel=100 * rtol)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_diverges_is_frozen_and_reported(engine: str, tmp_path: Path) -> None:
    """The second of three starts where its losses overflow: it is frozen there, and the others end as they do alone."""
    config = _config(seeds=3).model_copy(update={"outer": _config().outer.model_copy(update={"clip_task_norm": None})})
    experiment = build_experiment(config)
    create_run(tmp_path / "run", name="x", config=config)
    state, alone = init_state(config, experiment), init_state(config, experiment)
    for leaf in state.meta_params.params.values():
        leaf[1] = 1e30
    take_steps = make_engine(engine, config, experiment)
    result = train(config, [RunGroup(config, experiment, state, take_steps)], tmp_path / "run")
    assert result.step == 100 and result.diverged == {1: 1}
    make_engine(engine, config, experiment)(alone, 100)
    for actual, expected in zip(tensors(state.meta_params), tensors(alone.meta_params), strict=True):
        assert torch.equal(actual[[0, 2]], expected[[0, 2]])
    assert all((leaf[1] == 1e30).all() for leaf in state.meta_params.params.values())
    *_, last = [line for line in read_lines(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert last["loss"][1] is None and last["grad_norm"][1] is None and all(last["loss"][index] for index in (0, 2))


def test_commands_show_means_over_seeds(cli: Cli) -> None:
    run = ["-s", "outer.steps=12", "-s", "run.eval_tasks=4", "-s", "run.log_every=4", "-s", "run.eval_every=4"]
    result = cli("train", "-c", "smoke", *run, "-s", "run.seeds=3", "--out", "run", "--json")
    assert result.code == 0, result.err
    assert "3 runs side by side, seeds 0, 1, 2" in result.err
    document = json.loads(result.out)
    assert document["seeds"] == [0, 1, 2] and document["diverged"] == {}
    assert document["tasks_per_second"] == pytest.approx(75 * document["outer_steps_per_second"])
    document = json.loads(cli("eval", "--checkpoint", "run", "--tasks", "20", "--json").out)["results"][0]
    assert [result["seed"] for result in document["by_seed"]] == [0, 1, 2]
    means = [result["steps"][1]["grid"]["mse"]["mean"] for result in document["by_seed"]]
    assert len(set(means)) == 3
    assert document["steps"][1]["grid"]["mse"]["mean"] == pytest.approx(sum(means) / 3)
    assert document["steps"][1]["grid"]["mse"]["ci95_seeds"] == pytest.approx(t_interval(means))
    assert "ci95_seeds" not in document["baselines"]["zero"]["grid"]["mse"]
    assert "of their means over 3 seeds; ±seeds: over seeds" in cli("eval", "run", "--tasks", "20").out
    for seed in range(3):
        cli("train", "-c", "smoke", *run, "-s", f"run.seed={seed}", "--out", f"solo-{seed}")
        alone = json.loads(cli("eval", "--checkpoint", f"solo-{seed}", "--tasks", "20", "--json").out)["results"][0]
        assert alone["steps"][1]["grid"]["mse"]["mean"] == pytest.approx(means[seed], rel=1e-4)
        assert alone["by_seed"] == [{"seed": seed, "steps": alone["steps"]}]
    drawn = cli("plot", "--checkpoint", "run", "--tasks", "20")
    assert drawn.code == 0 and Path("run/plots/curve.png").exists()
    table = cli("compare", "run", "solo-0", "--tasks", "20")
    assert table.code == 0 and "run" in table.out


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0", "run.seeds must be from 1 to 1,024, or a list of seeds, got 0"),
        ("[1, 1]", "run.seeds must have from 1 to 1,024 seeds that differ, got [1, 1]"),
        ("[]", "run.seeds must have from 1 to 1,024 seeds that differ, got []"),
        ("[1, -2]", "run.seeds must have seeds from 0 to 2^63 - 1, got [1, -2]"),
        ("two", "run.seeds must be a whole number, or a list of seeds, got 'two'"),
        ("1.5", "run.seeds must be a whole number, or a list of seeds, got 1.5"),
    ],
)
def test_invalid_seeds_are_refused_with_the_values_that_are_taken(value: str, message: str, cli: Cli) -> None:
    result = cli("train", "-c", "smoke", "-s", f"run.seeds={value}", "--dry-run")
    assert result.code == 2 and message in result.err, result.err
