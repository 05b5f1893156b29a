"""The family of the user's own on the page of families: as printed, in a program and in a package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import maml_cli as maml
from maml_cli.config import from_dict
from maml_cli.tasks import make_family
from maml_cli.tasks.parametric_baselines import functions_at
from tests.conftest import ROOT, Cli

PAGE = (ROOT / "maml_cli/formulas/README.md").read_text()


def _blocks(language: str) -> list[str]:
    return [block.partition("```")[0] for block in PAGE.split(f"```{language}\n")[1:]]


(CODE,) = _blocks("python")


def _run(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_program_on_the_page_trains_evaluates_and_predicts(tmp_path: Path) -> None:
    Path(tmp_path, "waves.py").write_text(CODE.replace('"outer.steps=200"', '"outer.steps=3", "run.eval_tasks=2"'))
    result = _run("waves.py", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    row, predictions = result.stdout.splitlines()
    assert "'predictor': 'learner'" in row and len(predictions.split(",")) == 2
    assert len(CODE.partition("if __name__")[0].strip().splitlines()) <= 25


def test_a_package_that_declares_the_family_is_known_to_the_command(tmp_path: Path) -> None:
    (tmp_path / "waves.py").write_text(CODE)
    information = tmp_path / "waves-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: waves\nVersion: 1.0\n")
    (entry,) = _blocks("toml")
    (information / "entry_points.txt").write_text(entry.replace("project.entry-points.", "").replace('"', ""))
    settings = ["--set", "tasks.family=square_duty", "--set", "outer.steps=3", "--set", "run.eval_tasks=2"]
    result = _run("-m", "maml_cli", "train", "--config", "smoke", *settings, "--out", "run", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    result = _run("-m", "maml_cli", "eval", "run", "--tasks", "10", folder=tmp_path)
    assert result.returncode == 0 and "best unadapted" in result.stdout, result.stderr


def test_a_run_of_a_family_that_is_not_installed_is_one_message(tmp_path: Path, cli: Cli) -> None:
    result = cli("train", "--config", "smoke", "--set", "tasks.family=square_duty")
    assert result.code == 2 and result.err.count("\n") == 1
    assert "did you mean square? Else a package that adds it is not installed, got 'square_duty'" in result.err


def test_the_mean_on_the_page_is_that_of_the_functions() -> None:
    """Of 4,096 quasi-random functions, at 501 inputs: the standard error of Monte Carlo would be 0.05."""
    names: dict[str, maml.Family] = {}
    exec(CODE.partition("if __name__")[0], names)
    family = names["SQUARE_DUTY"]
    distributions = family.distributions({"duty": (0.3, 0.9)})
    maml.register_family("square_duty_of_the_page", family)
    tasks = {"family": "square_duty_of_the_page", "parameters": {"duty": [0.3, 0.9]}}
    drawn = functions_at(make_family(dict(from_dict({"tasks": tasks}, label="page").tasks)))  # type: ignore[arg-type]
    x = torch.linspace(-5, 5, 501, dtype=torch.float64)
    mean = family.mean(x, distributions)
    assert mean is not None and (drawn(x).mean(dim=0) - mean).abs().max() < 0.05


@pytest.mark.parametrize("block", _blocks("yaml"))
def test_the_configs_on_the_page_are_valid(block: str) -> None:
    from_dict(yaml.safe_load(block), label="page")
