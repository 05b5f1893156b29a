"""The presets: each loads, trains and has the settings of its name; and a wheel contains them."""

import math
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.checks.gradients import check_learner, smooth
from maml_cli.config import Config, load_config, override, presets, to_dict
from maml_cli.engines import choose_engine, kernel_build
from maml_cli.errors import ConfigError, FileError
from tests.conformance import FULL
from tests.conftest import Cli

ROOT = Path(__file__).parent.parent
LAB = {
    "tasks.amplitude": 1.0,
    "tasks.frequency": [0.5, 1.0],
    "tasks.phase": 0.0,
    "tasks.x": [-2 * math.pi, 2 * math.pi],
    "tasks.num_support": 4,
    "tasks.num_query": 4,
    "model.hidden": [32, 32],
    "model.activation": "tanh",
    "inner.loss": "l1",
    "outer.tasks_per_step": 1,
    "outer.optimizer": "sgd",
    "outer.lr": 1e-2,
    "outer.steps": 5000,
}
FINN = {
    "tasks.amplitude": [0.1, 5.0],
    "tasks.frequency": 1.0,
    "tasks.phase": [0.0, math.pi],
    "tasks.x": [-5.0, 5.0],
    "tasks.noise": 0.0,
    "model.hidden": [40, 40],
    "model.activation": "relu",
    "model.init": "truncated_normal",
    "inner.steps": 1,
    "inner.loss": "mse",
    "inner.adapt": "all",
    "inner.alpha.init": 0.01,
    "inner.alpha.learned": False,
    "outer.optimizer": "adam",
    "outer.lr": 1e-3,
    "outer.schedule": "constant",
    "outer.clip_norm": None,
    "outer.tasks_per_step": 25,
    "outer.steps": 70_000,
}
METHOD = FINN | {
    "tasks.num_support": 10,
    "tasks.num_query": 10,
    "model.init": "torch",
    "inner.order": "second",
    "outer.schedule": "cosine",
    "outer.clip_norm": 1.0,
    "outer.clip_task_norm": 10.0,
    "outer.steps": 20_000,
}
FIVE_STEPS = {"inner.steps": 5, "inner.alpha.learned": True, "inner.alpha.per_step": True}


def mixture(count: int) -> dict[str, Any]:
    """The tasks and the network of MMAML's mixture of the first `count` families."""
    return {
        "tasks.family": "mixture",
        "tasks.mixture": [
            {"family": family, "weight": 1.0, "parameters": {}}
            for family in ("sine", "line", "quadratic", "tanh", "absolute")[:count]
        ],
        "tasks.noise": 0.3,
        "tasks.num_support": 5,
        "tasks.num_query": 5,
        "model.hidden": [100, 100, 100],
    }


EXPECTED: dict[str, dict[str, Any]] = {
    "quickstart": {"outer.steps": 20_000},
    "smoke": {"outer.steps": 200},
    "finn-5shot": FINN | {"tasks.num_support": 5, "tasks.num_query": 5, "inner.order": "second"},
    "finn-10shot": FINN | {"tasks.num_support": 10, "tasks.num_query": 10, "inner.order": "second"},
    "finn-10shot-clip": FINN | {"tasks.num_support": 10, "tasks.num_query": 10, "inner.clip_norm": 50.0},
    "fomaml-10shot": FINN | {"tasks.num_support": 10, "tasks.num_query": 10, "inner.order": "first"},
    "finn-10shot-noise": FINN
    | {
        "tasks.num_support": 10,
        "tasks.num_query": 10,
        "model.init": "torch",
        "outer.schedule": "cosine",
        "outer.clip_norm": 1.0,
        "outer.weight_noise": 0.04,
    },
    "anil-10shot": METHOD | {"inner.adapt": "head"},
    "boil-10shot": METHOD | {"inner.adapt": "body"},
    "cavia-10shot": METHOD | {"inner.adapt": "context", "model.num_context": 5, "inner.alpha.init": 1.0},
    "bias-input-10shot": METHOD | {"inner.adapt": "all", "model.num_context": 20, "model.context_learned": True},
    "meta-sgd-10shot": METHOD | {"inner.alpha.learned": True, "inner.alpha.per": "parameter"},
    "lslr-10shot": METHOD | FIVE_STEPS | {"inner.alpha.per": "layer"},
    "alpha-per-step-10shot": METHOD | FIVE_STEPS | {"inner.alpha.per": "parameter"},
    "annealed-10shot": METHOD | {"inner.steps": 5, "inner.first_order_until": 10_000},
    "multi-step-10shot": METHOD | {"inner.steps": 5, "outer.multi_step_loss_until": 10_000},
    "maml-plus-plus-10shot": METHOD
    | FIVE_STEPS
    | {"inner.alpha.per": "layer", "inner.first_order_until": 5_000, "outer.multi_step_loss_until": 10_000},
    "meta-curvature-10shot": METHOD | {"inner.curvature": "kronecker", "inner.curvature_per_step": False},
    "momentum-10shot": METHOD | {"inner.steps": 5, "inner.momentum": 0.5},
    "reptile-10shot": METHOD
    | {
        "inner.steps": 5,
        "inner.alpha.init": 0.02,
        "tasks.num_query": 40,
        "outer.schedule": "linear",
        "outer.meta_gradient": "reptile",
        "outer.clip_norm": None,
        "outer.clip_task_norm": None,
    },
    "imaml-10shot": METHOD
    | {
        "inner.steps": 16,
        "inner.order": "implicit",
        "inner.proximal": 2.0,
        "inner.alpha.init": 0.005,
        "outer.steps": 10_000,
        "outer.lr": 3e-4,
        "outer.weight_noise": 0.04,
    },
    "alpaca-10shot": {
        "tasks.noise": 0.3,
        "tasks.num_support": [1, 10],
        "model.hidden": [40, 40],
        "model.activation": "tanh",
        "inner.adapt": "head",
        "inner.head": "ridge",
        "inner.ridge.per": "feature",
        "inner.ridge.noise": 0.5,
        "outer.steps": 20_000,
    },
    "joint-10shot": METHOD | {"outer.meta_gradient": "joint"},
    "oracle-10shot": METHOD | {"outer.meta_gradient": "joint", "model.oracle": True},
    **{
        f"best-{kind}{shots}shot": {
            "model.hidden": [40, 40],
            "model.activation": "relu",
            "tasks.num_support": shots,
            "tasks.frequency": [0.8, 1.2] if kind == "frequency-" else 1.0,
            "inner.steps": 1 if kind == "1step-" else 5,
            "inner.momentum": 0.8 if kind == "frequency-" else 0.0,
            "inner.curvature": "kronecker",
            "inner.curvature_per_step": True,
            "inner.alpha.per": "parameter",
            "inner.alpha.per_step": True,
        }
        for kind in ("", "1step-", "frequency-")
        for shots in (5, 10)
    },
    **{
        f"ridge-{shots}shot": {
            "model.hidden": [40, 40],
            "model.activation": "relu",
            "tasks.num_support": shots,
            "inner.head": "ridge",
            "inner.adapt": "head",
        }
        for shots in (5, 10)
    },
    **{
        f"ridge-{kind}-{shots}shot": {
            "model.hidden": [40, 40],
            "model.activation": "relu",
            "tasks.num_support": shots,
            "tasks.frequency": [0.8, 1.2] if kind == "frequency" else 1.0,
            "inner.head": "ridge",
            "inner.adapt": "all",
            "inner.curvature_per_step": True,
            "inner.alpha.per": "parameter",
            "inner.alpha.after_last_step": "decay",
        }
        for kind in ("body", "frequency")
        for shots in (5, 10)
    },
    **{
        f"wide-{shots}shot": {
            "model.hidden": [64, 64],
            "model.activation": "sin",
            "tasks.num_support": shots,
            "tasks.frequency": 1.0,
            "inner.steps": 5,
            "inner.curvature": "none",
            "inner.alpha.per": "parameter",
            "inner.alpha.per_step": True,
        }
        for shots in (5, 10)
    },
    **{
        f"mmaml-{count}modes": mixture(count)
        | {
            "model.num_context": 20,
            "model.context_learned": True,
            "model.activation": "relu",
            "inner.steps": 5,
            "inner.alpha.init": 0.001,
            "outer.tasks_per_step": 25 * count,
            "outer.steps": 70_000,
        }
        for count in (2, 3, 5)
    },
    **{
        f"ridge-mixture-{count}modes": mixture(count)
        | {
            "model.activation": "relu",
            "inner.steps": 4,
            "inner.head": "ridge",
            "inner.adapt": "all",
            "inner.curvature_per_step": True,
        }
        for count in (2, 3, 5)
    },
    "own-curves": {
        "tasks.family": "data",
        "tasks.file": "configs/own-curves.csv",
        "tasks.data.task_column": "station",
        "tasks.data.x_column": "day",
        "tasks.data.y_column": "celsius",
        "tasks.num_support": 10,
        "tasks.num_query": 20,
    },
    "lab-fixed-alpha": LAB | {"inner.steps": 3, "inner.alpha.init": 0.03, "inner.alpha.learned": False},
    "lab-learned-alpha": LAB
    | {
        "inner.steps": 5,
        "inner.alpha.init": 0.1,
        "inner.alpha.learned": True,
        "inner.alpha.per": "scalar",
        "inner.alpha.per_step": False,
        "inner.alpha.optimizer": "adam",
        "inner.alpha.lr": 1e-4,
    },
}


def test_all_presets_have_expected_settings_below() -> None:
    assert set(presets.names()) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_preset_has_the_settings_of_its_name(name: str) -> None:
    config = to_dict(load_config(name).config)
    for key, value in EXPECTED[name].items():
        setting: Any = config
        for name_in_section in key.split("."):
            setting = setting[name_in_section]
        is_close = isinstance(value, float | list) and key != "tasks.mixture"
        assert setting == pytest.approx(value) if is_close else setting == value, key


LONG = ("mmaml-3modes", "mmaml-5modes", "ridge-mixture-3modes", "ridge-mixture-5modes")
"""Presets that are trained with MAML_FULL_TESTS alone: they differ from those of two modes in their components."""


def _without_graph(config: Config) -> Config:
    """`config` with `eager` in place of a graph, which takes half a minute to compile; unchanged with
    MAML_FULL_TESTS."""
    if FULL or choose_engine(config, torch.device("cpu")).name != "compiled":
        return config
    return override(config, ["run.engine=eager"], label="test")


@pytest.mark.parametrize("name", [name for name in EXPECTED if FULL or name not in LONG])
def test_preset_has_a_short_summary_trains_and_passes_the_gradient_checks(name: str, cli: Cli) -> None:
    text = presets.path(name).read_text()
    assert text.startswith("# ") and len(presets.summary(name)) <= 110
    result = cli("train", "-c", name, "-s", "outer.steps=3", "-s", "run.log_every=1", "-s", "run.eval_tasks=3", "-q")
    assert result.code == 0, result.err
    lines = (Path(result.out.strip()) / "metrics.jsonl").read_text().splitlines()
    assert all(case.passed for case in check_learner(_without_graph(smooth(load_config(name).config))))
    if name == "lab-learned-alpha":
        assert all(f'"{key}": {{"alpha": [' in lines[1] for key in ("alpha", "alpha_grad"))


@pytest.mark.parametrize("name", ["quickstart", "lab-fixed-alpha", "imaml-10shot"])
def test_checks_of_a_preset_fit_into_80_columns(name: str, cli: Cli) -> None:
    checked = cli("check", "-c", name)
    assert checked.code == 0 and "WRONG" not in checked.out and max(map(len, checked.out.splitlines())) <= 80


def test_an_unknown_preset_is_answered_with_the_nearest_name_or_the_command_that_lists_all() -> None:
    with pytest.raises(ConfigError, match=r"finn-10: no such preset; did you mean finn-10shot\?"):
        presets.path("finn-10")
    with pytest.raises(ConfigError, match="zzz: no such preset; maml presets lists them"):
        presets.path("zzz")


def test_a_source_that_is_no_file_is_answered_with_what_config_takes(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"^smoke.yaml: no such file; did you mean the preset smoke\?$"):
        presets.find("smoke.yaml")
    with pytest.raises(FileError, match=r"^none.yaml: no such file; --config takes a YAML file or a name that"):
        presets.find("none.yaml")
    with pytest.raises(
        FileError, match=f"^{tmp_path}: a directory; --config takes a YAML file or the name of a preset$"
    ):
        presets.find(str(tmp_path))


def test_a_preset_is_copied_to_a_new_file_only(tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    presets.copy("smoke", target)
    assert load_config(str(target)).config == load_config("smoke").config
    with pytest.raises(FileError, match="exists already; give a new file"):
        presets.copy("smoke", target)
    with pytest.raises(FileError, match=r"mine.yaml: cannot be written: .*mine.yaml is not a directory"):
        presets.copy("smoke", target / "mine.yaml")


def test_presets_are_listed_without_importing_pydantic_or_yaml() -> None:
    code = (
        "import sys; from maml_cli.config import presets; presets.summary(presets.names()[0]); "
        "print(sorted({'pydantic', 'yaml', 'torch'} & sys.modules.keys()))"
    )
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert listed.stdout.strip() == "[]"


def test_a_wheel_has_the_presets_and_finds_them_outside_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        assert {f"maml_cli/presets/{name}.yaml" for name in EXPECTED} <= set(archive.namelist())
        kernel = {
            f"maml_cli/engines/{file.name}"
            for file in (kernel_build.SOURCE, kernel_build.EVALUATION_SOURCE, *kernel_build.HEADERS)
        }
        assert {"maml_cli/py.typed", *kernel} <= set(archive.namelist())
    code = (
        "import sys; sys.path.insert(0, 'site'); from maml_cli.cli.app import main; "
        "main(['config', 'show', 'finn-5shot'])"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "num_support: 5" in shown.stdout and "site/maml_cli/presets/finn-5shot.yaml" in shown.stdout


def test_the_defaults_are_finn_10shot_but_for_the_initial_weights() -> None:
    assert load_config("finn-10shot").config.model_copy(update={"model": Config().model}) == Config()
