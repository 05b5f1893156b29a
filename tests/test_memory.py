"""Memory: what is available, what a training and an evaluation need, and how many tasks adapt at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maml_cli import memory
from maml_cli.adaptation.chunks import task_bytes, tasks_at_a_time
from maml_cli.cli.exit_codes import exit_on_error
from maml_cli.config import load_config, native_thread_bytes
from maml_cli.core import MetaParams
from maml_cli.errors import ConfigError
from maml_cli.evaluation import Lower, check_memory
from maml_cli.training.memory import PROCESS_BYTES, keys_to_lower, training_bytes
from tests.conftest import ROOT, Cli


def _bytes(engine: str, *changes: str) -> float:
    """The estimate for finn-10shot with `changes`, without the constant."""
    return training_bytes(load_config("finn-10shot", [*changes, "run.device=cpu"]).config, engine) - PROCESS_BYTES


@pytest.mark.parametrize(
    "change",
    [
        "outer.tasks_per_step=1000",
        "tasks.num_support=1000",
        "tasks.num_query=1000",
        "inner.steps=20",
        "model.hidden=[400,400]",
        "run.seeds=10",
        "run.dtype=float64",
        "inner.curvature=kronecker",
        "model.num_context=1000",
    ],
)
@pytest.mark.parametrize("engine", ["eager", "reference", "compiled"])
def test_the_estimate_grows_with_everything_that_an_outer_step_stores(engine: str, change: str) -> None:
    assert _bytes(engine, change) > 1.5 * _bytes(engine)


def test_recomputed_activations_do_not_grow_with_the_inner_steps() -> None:
    points = ["tasks.num_support=10000", "inner.steps=50"]
    assert _bytes("eager", *points, "inner.recompute_activations=true") < _bytes("eager", *points) / 10


def test_a_training_beyond_the_available_memory_is_refused_with_the_keys_to_lower(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 2**30)
    arguments = ["train", "-c", "finn-10shot", "-s", "model.hidden=[4000,4000]", "-s", "run.engine=eager"]
    result = cli(*arguments)
    assert result.code == 2 and result.err.count("\n") == 1 and not Path("outputs").exists()
    assert "GiB of memory, this process has 1.0; lower outer.tasks_per_step or model.hidden" in result.err
    assert cli(*arguments, "--dry-run") == result


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        (
            ["outer.tasks_per_step=1000000", "tasks.num_support=1", "tasks.num_query=1"],
            ["outer.tasks_per_step", "model.hidden"],
        ),
        (["tasks.num_query=100000"], ["outer.tasks_per_step", "tasks.num_query", "model.hidden"]),
        (
            ["tasks.num_support=20000", "inner.steps=30"],
            ["outer.tasks_per_step", "tasks.num_support", "inner.steps", "model.hidden"],
        ),
        (["model.num_context=8192"], ["outer.tasks_per_step", "model.num_context", "model.hidden"]),
    ],
)
def test_the_keys_to_lower_are_those_that_save_memory(changes: list[str], keys: list[str]) -> None:
    assert keys_to_lower(load_config("finn-10shot", changes).config, "eager") == keys


def test_threads_of_the_native_engine_are_counted_and_named() -> None:
    """1,000 threads with a workspace of about a MiB each, for tasks of 2,000 points."""
    config = load_config("finn-10shot", ["run.threads=1000", "tasks.num_support=1000", "tasks.num_query=1000"]).config
    assert "run.threads" in keys_to_lower(config, "native")
    assert 1000 * native_thread_bytes(config) < training_bytes(config, "native") < 1100 * native_thread_bytes(config)


def test_errors_of_too_many_tasks_and_steps_are_refused(cli: Cli, trained: str) -> None:
    """24 bytes for each of a million tasks and 100,001 numbers of inner steps, 2,235.2 GiB, and 0.3 for the tasks."""
    result = cli("eval", trained, "--tasks", "1000000", "--steps", "100000")
    assert result.code == 2 and "needs about 2,236 GiB of memory" in result.err
    assert result.err.endswith("lower --tasks or --steps\n")


def test_as_many_tasks_adapt_at_a_time_as_half_a_gibibyte_holds() -> None:
    def meta_params(width: int) -> MetaParams:
        params = {"hidden0.w": torch.zeros(1, width, width), "hidden0.b": torch.zeros(1, 1, width)}
        return MetaParams(params, {})

    assert tasks_at_a_time(meta_params(40), 100) == 100
    wide = meta_params(2000)
    assert 1 < tasks_at_a_time(wide, 100) == 2**29 // task_bytes(wide, 100) < 100
    assert tasks_at_a_time(wide, 100_000) == 1
    lower = Lower("the errors", "the task")
    with pytest.raises(ConfigError, match=r"has [\d.,]+; lower the errors$"):
        check_memory(wide, num_tasks=10**12, num_shots=10, steps=1, lower=lower)
    with pytest.raises(ConfigError, match=r"has [\d.,]+; lower the task$"):
        check_memory(wide, num_tasks=2, num_shots=10**9, steps=1, lower=lower)


def test_control_groups_and_limits_of_the_process_bound_the_available_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = Path("/proc/self/cgroup")
    if not lines.exists():
        pytest.skip("no control groups")
    first = next((line for line in lines.read_text().splitlines() if line.startswith("0::")), None)
    if first is not None:
        group = tmp_path / first.removeprefix("0::").lstrip("/")
        group.mkdir(parents=True, exist_ok=True)
        for name, text in {
            "memory.max": "1000000",
            "memory.current": "700000",
            "memory.stat": "inactive_file 200",
        }.items():
            (group / name).write_text(text)
        monkeypatch.setattr(memory, "CGROUPS", tmp_path)
        assert memory.available_memory() == 300_200
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "from maml_cli.memory import available_memory; assert 0 < available_memory() < 2**30"
    )
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_every_failed_allocation_is_the_same_message(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, exit_on_error():
        raise error
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("out of memory; try fewer tasks")
