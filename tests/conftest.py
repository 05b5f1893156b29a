"""What the tests share: a command line in this process, one small trained run, and directories of their own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

from maml_cli.cli.app import main
from maml_cli.engines import kernel_build
from tests.conformance import FULL

ROOT = Path(__file__).parent.parent

# The same examples in every run, however slow the machine.
settings.register_profile(
    "maml", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("maml")

TINY_RUN = ["-s", "outer.steps=12", "-s", "run.eval_tasks=4", "-s", "run.log_every=5", "-s", "run.eval_every=4"]

USERS_OPTIMISATION = kernel_build.OPTIMISATION

# Of the quickstart; one of them is of the kernel, where it can be compiled.
NUM_CHECKS = 53 if kernel_build.compiler() else 52


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Home and caches of this test run, shared by all its workers: tests write nothing to those of the user, and no
    new file into the checkout. Child processes have one thread, like the tests."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    home = root / "home"
    home.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
        patch.setenv("MAML_CACHE", str(home / ".cache" / "maml"))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(home / ".cache" / "inductor"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("PYTHONUNBUFFERED", raising=False)  # the streams of child processes are those of a user
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # hundreds of child processes import this package
        if not FULL:  # most kernels of tests take longer to optimise than to run
            patch.setattr(kernel_build, "OPTIMISATION", "-O0")
        set_hypothesis_home_dir(home / ".hypothesis")
        before = _files_of_the_checkout()
        yield
        assert _files_of_the_checkout() <= before, "a test wrote into the checkout"


def _files_of_the_checkout() -> set[str]:
    """Paths of its files, without those that the tools write: bytecode, the caches of pytest, mypy and ruff, git's."""
    tools = {"__pycache__", ".git", ".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache"}
    paths = set[str]()
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in tools]
        paths |= {os.path.join(folder, name) for name in files}
    return paths


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def optimised_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels as users have them: with their rounding, and faster for thousands of tasks."""
    monkeypatch.setattr(kernel_build, "OPTIMISATION", USERS_OPTIMISATION)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `maml` in an empty directory: cli("train", "-c", "smoke") -> exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = stop.value.code
        return Result(code if isinstance(code, int) else 0 if code is None else 1, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def _trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.chdir(folder)
        main(["train", "-c", "smoke", *TINY_RUN, "-s", "run.checkpoint_every=4", "--quiet"])
    assert not stop.value.code
    return folder / "outputs" / "smoke"


@pytest.fixture
def trained(cli: Cli, _trained_run: Path) -> str:
    """A run directory of twelve outer steps, checkpointed at every fourth: a copy of its own for each test."""
    run = shutil.copytree(_trained_run, Path("outputs/smoke"))
    return str(run)


def shell(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A bash command line in `folder`, in which `maml` is this source tree."""
    maml = f"{sys.executable} -m maml_cli"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    script = f"set -o pipefail; {command.replace('maml', maml)}"
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
