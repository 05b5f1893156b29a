"""Exports: metrics as a tidy table, and parameters in the formats of other programs."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load as load_safetensors

import maml_cli as maml
from maml_cli.runs import LossRecord, metric_rows
from maml_cli.runs.metrics import Log
from tests.conftest import Cli

SEEDS = ["-s", "run.seeds=2", "-s", "inner.alpha.learned=true", "-s", "inner.steps=2"]
SHORT = ["-s", "outer.steps=6", "-s", "run.log_every=3", "-s", "run.eval_every=6", "-s", "run.eval_tasks=3", "-q"]


def _numpy_network(params: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The network of smoke, two relu layers, from what a file has."""
    values = x[:, None]
    for layer in ("hidden0", "hidden1"):
        values = np.maximum(values @ params[f"{layer}.w"] + params[f"{layer}.b"], 0)
    return np.asarray(values @ params["head.w"] + params["head.b"])[:, 0]


def test_metrics_are_a_row_for_each_step_seed_and_quantity(cli: Cli) -> None:
    run = cli("train", "-c", "smoke", *SEEDS, *SHORT).out.strip()
    rows = [*csv.DictReader(io.StringIO(cli("export", "metrics", run).out))]
    assert [*rows[0]] == ["step", "seed", "quantity", "inner_step", "value"]
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    expected = set()
    for line in lines:
        for seed in (0, 1):
            step = str(line["step"])
            if "eval" in line:
                expected |= {
                    (step, str(seed), name, str(inner), line["eval"][name][seed][inner])
                    for name in ("grid_mse", "grid_mae", "query_mse", "query_mae")
                    for inner in range(3)
                }
            else:
                expected |= {(step, str(seed), name, "", line[name][seed]) for name in ("loss", "grad_norm")}
                expected |= {
                    (step, str(seed), f"{name}.alpha", "0", line[name]["alpha"][seed][0])
                    for name in ("alpha", "alpha_grad")
                }
    obtained = [tuple(row[key] for key in ("step", "seed", "quantity", "inner_step")) for row in rows]
    assert len(set(obtained)) == len(obtained) == len(expected) == 2 * 2 * 4 + 2 * 2 * 4 * 3
    assert {(*key, float(row["value"])) for key, row in zip(obtained, rows, strict=True)} == expected

    document = json.loads(cli("export", "metrics", run, "--json").out)["metrics"]
    assert [{key: "" if value is None else str(value) for key, value in row.items()} for row in document] == rows
    result = cli("export", "metrics", run, "--csv", "--out", "deep/log.csv")
    assert result.out == "deep/log.csv\n"
    assert [*csv.DictReader(io.StringIO(Path("deep/log.csv").read_text()))] == rows


def test_a_diverged_run_has_no_value() -> None:
    log = Log([LossRecord(3, [math.nan, 1.0], [math.nan, 2.0], None, {}, {})], [], 0)
    assert [*metric_rows(log, [4, 5])] == [
        (3, 4, "loss", None, None),
        (3, 5, "loss", None, 1.0),
        (3, 4, "grad_norm", None, None),
        (3, 5, "grad_norm", None, 2.0),
    ]


def test_a_run_without_a_log_is_named(cli: Cli, trained: str) -> None:
    (Path(trained) / "metrics.jsonl").unlink()
    result = cli("export", "metrics", trained)
    assert (result.code, result.out) == (3, "") and result.err.endswith("no metrics.jsonl around it\n")


@pytest.mark.parametrize("file_format", ["safetensors", "npz", "torch"])
def test_parameters_are_read_by_other_programs_and_predict_the_same(file_format: str, cli: Cli) -> None:
    run = cli("train", "-c", "smoke", *SEEDS, *SHORT).out.strip()
    file = Path(cli("export", "params", run, "--format", file_format, "--seed", 1).out.strip())
    content = file.read_bytes()
    if file_format == "npz":
        with np.load(file, allow_pickle=False) as archive:
            params = {key: archive[key] for key in archive.files}
            text = str(params.pop("about"))
    elif file_format == "torch":
        loaded = torch.load(file, weights_only=True)
        text = loaded.pop("about")
        params = {key: value.numpy() for key, value in loaded.items()}
    else:
        params = load_safetensors(content)
        with safe_open(file, "np") as opened:
            text = opened.metadata()["about"]
    about = json.loads(text)
    trained = maml.load(run)
    assert (about["seed"], about["outer_step"]) == (1, 6)
    assert maml.Config(**about["config"]) == trained.checkpoint.config
    for key, value in trained.meta_params.params.items():
        np.testing.assert_array_equal(params[key], value[1].numpy())
    np.testing.assert_array_equal(params["rule.alpha"], trained.meta_params.rule_params["alpha"][1].numpy())
    assert len(params) == 7
    x = np.linspace(-5, 5, 20, dtype=np.float32)
    of_seed = {key: value[1:] for key, value in trained.meta_params.params.items()}
    network = trained.experiment.predict(of_seed, torch.from_numpy(x)[None, :, None])
    np.testing.assert_allclose(_numpy_network(params, x), network[0, :, 0].numpy(), rtol=1e-5, atol=1e-6)
    assert Path(cli("export", "params", run, "--format", file_format, "--seed", 1).out.strip()).read_bytes() == content


def test_a_seed_that_the_run_lacks_and_a_missing_package_are_named(
    cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = cli("export", "params", trained, "--seed", 7)
    assert (result.code, result.err) == (2, "--seed 7: the run has seed 0\n")
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    result = cli("export", "params", trained, "--format", "safetensors")
    assert result.code == 2 and "pip install safetensors" in result.err
    assert not (Path(trained) / "params.safetensors").exists()
