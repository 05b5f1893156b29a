"""A session: its plan, threads, memory, engine and run directory."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.engines import ENGINES, kernel_build
from maml_cli.training import plan_training, session, train
from tests.conftest import TINY_RUN, Cli


def test_training_runs_with_the_threads_of_the_config(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    threads_in_training = []

    def recording_train(*arguments: Any, **options: Any) -> Any:
        threads_in_training.append(torch.get_num_threads())
        return train(*arguments, **options)

    monkeypatch.setattr(session, "train", recording_train)
    for threads in 2, 1:
        cli("train", "-c", "smoke", *TINY_RUN, "-q", "-s", f"run.threads={threads}")
    assert threads_in_training == [2, 1]


def test_a_dry_run_names_the_run_directory_and_refuses_one_that_is_taken(cli: Cli, trained: str) -> None:
    assert cli("train", "-c", "smoke", "--dry-run").out.startswith("outputs/smoke-2: nothing written")
    assert cli("train", "-c", "smoke", "--dry-run", "--out", trained).code == 3
    document = json.loads(cli("train", "-c", "smoke", "--dry-run", "--json").out)
    assert document["run"] == "outputs/smoke-2" and document["config"]["outer"]["steps"] == 200
    assert not Path("outputs/smoke-2").exists()


def test_more_than_the_memory_of_the_machine_is_refused(cli: Cli) -> None:
    result = cli("train", "-c", "smoke", "-s", "outer.tasks_per_step=1000000", "-s", "tasks.num_support=100000")
    assert result.code == 2 and "GiB of memory, this process has" in result.err and not Path("outputs").exists()


def test_a_run_directory_that_cannot_be_created_names_out(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for the superuser, whom permissions do not stop."""
    make = Path.mkdir

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if "locked" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = cli("train", "-c", "smoke", *TINY_RUN, "-q", "--out", "locked/x")
    assert result.code == 3 and result.out == ""
    assert result.err == (
        "locked/x: cannot be created: Permission denied (locked/x); give another directory with --out\n"
    )


@pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler on this machine")
def test_a_kernel_cache_that_cannot_be_written_names_maml_cache(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    monkeypatch.setenv("MAML_CACHE", "file/cache")
    monkeypatch.setattr(kernel_build, "_start", lambda command: None)
    monkeypatch.setattr(kernel_build, "_finish", lambda compilation, path: b"")
    result = cli("train", "-c", "smoke", *TINY_RUN, "-q", "-s", "run.engine=native")
    assert result.code == 3 and not Path("outputs").exists()
    message = "file/cache: kernel cache cannot be written: Not a directory; set MAML_CACHE to a directory that can be"
    assert result.err.startswith(message) and result.err.count("\n") == 1


@pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler on this machine")
def test_an_engine_that_auto_cannot_build_is_replaced_by_eager(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    monkeypatch.setenv("MAML_CACHE", "file/cache")
    monkeypatch.setattr(kernel_build, "_start", lambda command: None)
    monkeypatch.setattr(kernel_build, "_finish", lambda compilation, path: b"")
    monkeypatch.setitem(ENGINES, "native", ENGINES["native"]._replace(min_eager_seconds=0.0))
    result = cli("train", "-c", "smoke", *TINY_RUN, "--json")
    assert result.code == 0 and json.loads(result.out)["engine"] == "eager"
    assert "set MAML_CACHE" in result.err and "engine   eager (native could not be built)" in result.err


def test_a_plan_has_the_device_and_the_engine_of_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_training("smoke", ["run.engine=reference"], out=None, resume=None, device="cpu")
    assert (plan.device.name, plan.engine.name, plan.run_directory) == ("cpu", "reference", "outputs/smoke")
