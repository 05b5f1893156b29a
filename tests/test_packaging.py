"""The wheel and the project's metadata: what an installation contains, and what it says about itself."""

import email
import importlib
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from maml_cli import __version__
from maml_cli.cli.app import main

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = [path.relative_to(ROOT) for path in (ROOT / "maml_cli").rglob("*.py")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the wheel that is built from this checkout, by name."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_has_every_module_except_the_developers_tools(wheel: dict[str, bytes]) -> None:
    expected = {path.as_posix() for path in MODULES if path.parts[1] != "dev"}
    assert {name for name in wheel if name.endswith(".py")} == expected
    assert not any("/dev/" in name for name in wheel)


def test_the_wheel_has_the_kernel_the_types_the_presets_and_the_licence(wheel: dict[str, bytes]) -> None:
    presets = {f"maml_cli/presets/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    licence = f"maml_cli-{__version__}.dist-info/licenses/LICENSE"
    assert {"maml_cli/engines/kernel.cpp", "maml_cli/py.typed", licence, *presets} <= wheel.keys()
    assert wheel[licence] == (ROOT / "LICENSE").read_bytes() and b"MIT License" in wheel[licence]


def test_the_wheel_has_the_first_seed_of_each_published_run_in_less_than_two_megabytes(wheel: dict[str, bytes]) -> None:
    """But for those of MMAML's networks of 3 x 100 units, which alone take two megabytes each."""
    published = (ROOT / "outputs" / "published").iterdir()
    runs = [run for run in published if run.is_dir() and not re.search("-seed|mixture", run.name)]
    expected = {f"maml_cli/published/{run.name}.pt": max(run.glob("checkpoints/step-*.pt")) for run in runs}
    assert {name for name in wheel if name.endswith(".pt")} == expected.keys() and len(expected) >= 8
    assert all(wheel[name] == file.read_bytes() for name, file in expected.items())
    assert sum(len(wheel[name]) for name in expected) < 2_000_000


def test_the_metadata_name_licence_versions_and_the_command(wheel: dict[str, bytes]) -> None:
    folder = f"maml_cli-{__version__}.dist-info"
    metadata = email.message_from_bytes(wheel[f"{folder}/METADATA"])
    assert metadata["License-Expression"] == "MIT" and metadata["Version"] == __version__
    supported = {line.rpartition(" ")[2] for line in metadata.get_all("Classifier", []) if "Python :: 3." in line}
    assert supported == {"3.11", "3.12", "3.13"} and metadata["Requires-Python"] == ">=3.11"
    assert f"maml = {PROJECT['scripts']['maml']}" in wheel[f"{folder}/entry_points.txt"].decode()


def test_the_command_is_the_entry_point_of_the_command_line() -> None:
    module, _, function = PROJECT["scripts"]["maml"].partition(":")
    assert getattr(importlib.import_module(module), function) is main


def test_every_dependency_has_a_pinned_version() -> None:
    """The libraries of the benchmark aside, which the Makefile installs only for it."""
    pins = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    assert {requirement.partition(">=")[0].lower() for requirement in wanted} <= pins


def test_ci_tests_every_version_that_the_classifiers_name() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    versions = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    matrix = ", ".join(f'"{version}"' for version in versions)
    assert f"python: [{matrix}]" in workflow
