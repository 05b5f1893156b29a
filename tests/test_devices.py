"""Choosing a device; and the accelerators themselves, where there are any."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maml_cli import runtime
from maml_cli.config import Config
from maml_cli.core import expand_to_tasks, tensors
from maml_cli.errors import ConfigError
from maml_cli.experiment import build_experiment, choose_device, outer_step_work
from maml_cli.tasks import make_generator
from tests.conftest import Cli

PRESENT = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


def test_an_unavailable_device_is_refused_with_the_available_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "available_devices", lambda: ["cpu"])
    with pytest.raises(ConfigError, match="device cuda: not available here; there are auto, cpu"):
        runtime.select_device("cuda", work=1)


@pytest.mark.parametrize(
    ("present", "work", "float64", "device", "reason"),
    [
        (["cpu"], 10**12, False, "cpu", "no accelerator"),
        (["cuda", "cpu"], 10**12, False, "cuda", "large enough"),
        (["cuda", "cpu"], 10**6, False, "cpu", "1.0 million multiply-adds is too small to gain from cuda"),
        (["cuda", "cpu"], 2 * 10**8 - 1, False, "cpu", "200.0 million multiply-adds is too small"),
        (["cuda", "cpu"], 2 * 10**8, False, "cuda", "large enough"),
        (["mps", "cpu"], 10**12, True, "cpu", "no accelerator that can run this"),
        (["mps", "cpu"], 10**12, False, "mps", "large enough"),
    ],
)
def test_auto_takes_an_accelerator_for_enough_work(
    present: list[str], work: int, float64: bool, device: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "available_devices", lambda: present)
    choice = runtime.select_device("auto", work=work, needs_float64=float64)
    assert choice.device.type == device and reason in choice.reason


def test_the_work_of_an_outer_step_is_points_times_passes_times_weights() -> None:
    """25 tasks, (10 * 9 + 10 * 3) points, 40 + 1600 + 40 weights; 3 in place of 9 in first order."""
    assert outer_step_work(Config()) == 25 * 120 * 1680
    first = Config.model_validate({"inner": {"order": "first", "steps": 5}})
    assert outer_step_work(first) == 25 * (10 * 5 * 3 + 30) * 1680
    assert choose_device(Config.model_validate({"run": {"device": "cpu"}})).device.type == "cpu"


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_an_accelerator_computes_the_same_meta_gradient(name: str) -> None:
    if not PRESENT[name]:
        pytest.skip(f"no {name} device on this machine")
    config = Config.model_validate(
        {"inner": {"steps": 3, "alpha": {"learned": True, "per": "parameter", "per_step": True}}}
    )
    results = []
    for device in ("cpu", name):
        experiment = build_experiment(config, device)
        meta_params = experiment.init_meta_params([0, 1])
        batch = experiment.sample([make_generator(0, "tasks"), make_generator(1, "tasks")])
        losses, gradients = experiment.algorithm.meta_gradient(meta_params, batch, 0)
        assert losses.device.type == device
        *_, adapted = experiment.algorithm.unroll(expand_to_tasks(meta_params, 25), batch.support, 3)
        results.append([losses, *tensors(gradients), *adapted.values()])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual.cpu(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_an_accelerator_trains_evaluates_and_resumes_to_the_same_bytes(name: str, cli: Cli) -> None:
    if not PRESENT[name]:
        pytest.skip(f"no {name} device on this machine")
    options = ["-s", "outer.steps=20", "-s", "run.checkpoint_every=10", "-s", "run.eval_tasks=5", "--device", name]
    runs = [cli("train", "-c", "quickstart", *options, "-q").out.strip() for _ in range(2)]
    first, second = (Path(run) / "checkpoints" / "step-00000020.pt" for run in runs)
    assert first.read_bytes() == second.read_bytes()
    second.unlink()
    assert cli("train", "--resume", str(second.with_name("step-00000010.pt")), "-q").code == 0
    assert first.read_bytes() == second.read_bytes()
    assert cli("eval", "--checkpoint", runs[0], "--tasks", "50", "--device", name).code == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library of Linux")
def test_freed_tensors_are_reused_without_new_page_faults() -> None:
    """Eight tensors of 5 MB, 1,221 pages each, freed together: fewer faults than pages of one tensor."""
    code = """
import resource, torch
from maml_cli.runtime import keep_freed_memory
keep_freed_memory()
for again in range(6):
    if again == 3:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(1_250_000) for _ in range(8)]
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300
