"""What the tests share: a command line in this process, and one small trained run."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from maml_cli.cli.app import main
from maml_cli.engines import kernel_build

TINY_RUN = ["-s", "outer.steps=12", "-s", "run.eval_tasks=4", "-s", "run.log_every=5", "-s", "run.eval_every=4"]

# Of the quickstart; one of them is of the kernel, where it can be compiled.
NUM_CHECKS = 53 if kernel_build.compiler() else 52


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Home and caches of this test run, shared by all its workers, so that tests write nothing to those of the user."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    home = root / "home"
    home.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
        patch.setenv("MAML_CACHE", str(home / ".cache" / "maml"))
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@pytest.fixture
def trained(cli: Cli) -> str:
    """A run directory of twelve outer steps, checkpointed at every fourth."""
    result = cli("train", "-c", "smoke", *TINY_RUN, "-s", "run.checkpoint_every=4", "--quiet")
    assert result.code == 0, result.err
    return result.out.strip()


def shell(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A bash command line in `folder`, in which `maml` is this source tree."""
    maml = f"{sys.executable} -m maml_cli"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    script = f"set -o pipefail; {command.replace('maml', maml)}"
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
