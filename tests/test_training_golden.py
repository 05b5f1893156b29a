"""A committed run that was interrupted at outer step 6 of 12 is resumed: checkpoints stay readable.

`python -m tests.test_training_golden` makes it again, which only a change of the checkpoint's schema calls for.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.config import Config
from maml_cli.engines import make_engine
from maml_cli.experiment import build_experiment
from maml_cli.runs import checkpoint, create_run, open_checkpoint, read_lines
from maml_cli.training import Hooks, RunGroup, init_state, plan_training, run_session, train

GOLDEN = Path(__file__).parent / "golden" / "resumable"
CONFIG = Config.model_validate(
    {
        "tasks": {"num_support": 3, "num_query": 3},
        "model": {"hidden": [4], "activation": "tanh"},
        "inner": {"steps": 2, "alpha": {"learned": True}},
        "outer": {"steps": 12, "tasks_per_step": 3, "clip_task_norm": 10.0, "weight_noise": 0.01},
        "run": {
            "dtype": "float64",
            "device": "cpu",
            "engine": "reference",
            "seeds": 2,
            "log_every": 4,
            "eval_every": 6,
            "eval_tasks": 3,
            "checkpoint_every": 6,
        },
    }
)


def _train(run: Path, *, until: int) -> None:
    """Train CONFIG in a new run directory, interrupted at outer step `until`."""
    create_run(run, name="golden", config=CONFIG)
    experiment = build_experiment(CONFIG)
    state = init_state(CONFIG, experiment)
    group = RunGroup(CONFIG, experiment, state, make_engine("reference", CONFIG, experiment))
    train(CONFIG, [group], run, hooks=Hooks(interrupted=lambda: state.step >= until))


def _digests(run: Path) -> dict[str, str]:
    """SHA-256 of metrics.jsonl, and of all tensors of the newest checkpoint."""
    values = b"".join(_tensor_bytes(open_checkpoint(run).contents))
    return {
        "metrics_sha256": checkpoint.digest((run / "metrics.jsonl").read_bytes()),
        "tensors_sha256": hashlib.sha256(values).hexdigest(),
    }


def _tensor_bytes(value: Any) -> list[bytes]:
    if isinstance(value, torch.Tensor):
        return [value.numpy().tobytes()]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [data for item in inner for data in _tensor_bytes(item)]


def _numbers(value: Any) -> list[float]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [float(value)] if inner is None else [number for item in inner for number in _numbers(item)]


def test_the_committed_run_resumes_to_the_end_of_an_uninterrupted_one(tmp_path: Path) -> None:
    """To 1e-9 on every machine; on one whose arithmetic is that of the committed run, to the same bytes."""
    run, uninterrupted = tmp_path / "resumed", tmp_path / "uninterrupted"
    shutil.copytree(GOLDEN, run)
    assert open_checkpoint(run).step == 6 and open_checkpoint(run).config == CONFIG
    result = run_session(plan_training(None, [], out=None, resume=str(run), device=None), quiet=True).result
    assert (result.step, result.steps_done) == (12, 6)
    _train(uninterrupted, until=12)
    actual, expected = (read_lines(path / "metrics.jsonl") for path in (run, uninterrupted))
    assert [line["step"] for line in actual] == [0, 4, 6, 8, 12, 12]
    assert _numbers(actual) == pytest.approx(_numbers(expected), rel=1e-9, abs=1e-12)
    committed = json.loads((GOLDEN.parent / "resumable.json").read_text())
    assert _numbers(actual) == pytest.approx(committed["numbers"], rel=1e-9, abs=1e-12)
    if (uninterrupted / "metrics.jsonl").read_bytes().startswith((GOLDEN / "metrics.jsonl").read_bytes()):
        digests = {key: committed[key] for key in ("metrics_sha256", "tensors_sha256")}
        assert _digests(run) == _digests(uninterrupted) == digests


def test_the_committed_run_is_small() -> None:
    assert sum(file.stat().st_size for file in GOLDEN.rglob("*") if file.is_file()) < 50_000


if __name__ == "__main__":
    shutil.rmtree(GOLDEN, ignore_errors=True)
    _train(GOLDEN, until=6)
    (GOLDEN / "timing.jsonl").unlink()
    (GOLDEN / "checkpoints" / "step-00000000.pt").unlink()
    checksums = GOLDEN / "checkpoints" / "SHA256SUMS"
    checksums.write_text("".join(f"{line}\n" for line in checksums.read_text().splitlines() if "step-00000006" in line))
    uninterrupted = GOLDEN.parent / "uninterrupted"
    _train(uninterrupted, until=12)
    numbers = _numbers(read_lines(uninterrupted / "metrics.jsonl"))
    document = _digests(uninterrupted) | {"numbers": numbers}
    (GOLDEN.parent / "resumable.json").write_text(json.dumps(document, indent=1) + "\n")
    shutil.rmtree(uninterrupted)
