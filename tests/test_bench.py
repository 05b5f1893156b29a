"""The benchmark: it runs at toy size, all that it times is right, and its words are those of its numbers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.config import load_config
from maml_cli.dev import bench_worker, benchmark, other_libraries
from maml_cli.dev.benchmark_tables import benchmark_markdown


def test_it_runs_at_toy_size_and_what_it_times_is_right(tmp_path: Path) -> None:
    """Peers that are not installed are named as that; the others are within 1e-5 of the reference."""
    command = [sys.executable, "-m", "maml_cli.dev.benchmark", "--toy", "--rounds", "1", "--seconds", "0.01"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    rows = {row["name"]: row for row in found["workloads"][0]["rows"]}
    for name in ("loop over tasks, create_graph", "torch.func, vmap(grad)", "reference", "eager"):
        assert rows[name]["milliseconds"] > 0 and 0 < rows[name]["distance"] < 1e-5 and rows[name]["missing"] is None
        assert name in done.stdout
    for name, package in other_libraries.NEEDS.items():
        assert rows[name]["milliseconds"] or rows[name]["missing"] == f"{package} is not installed"


def test_another_gradient_is_far_from_the_reference() -> None:
    """First order for second: what the check before the timing is for."""
    config = load_config("finn-10shot", ["model.hidden=[4]", "outer.tasks_per_step=2", "run.device=cpu"]).config
    expected = bench_worker._reference(config)
    other = bench_worker._reference(load_config("finn-10shot", ["model.hidden=[4]", "outer.tasks_per_step=2"]).config)
    assert bench_worker._distance(expected, other) == 0.0
    first = ["model.hidden=[4]", "outer.tasks_per_step=2", "inner.order=first"]
    assert bench_worker._distance(bench_worker._reference(load_config("finn-10shot", first).config), expected) > 1e-4
    for name in ("loop over tasks, create_graph", "torch.func, vmap(grad)"):
        _, gradient = bench_worker._peer(name, config)
        assert bench_worker._distance(gradient(), expected) < bench_worker.TOLERANCE


def test_time_is_an_outer_step_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances by a second with each look at it: 1 + 2 + 4 steps in four looks are 4 s."""
    looks = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(looks)))
    assert bench_worker._timed(lambda count: count, 4.0) == pytest.approx(1e3 * 4 / 7)


def _row(name: str, milliseconds: float | None, *overrides: str) -> dict[str, Any]:
    spread = None if milliseconds is None else [milliseconds * 0.9, milliseconds * 1.1]
    missing = None if milliseconds else "jax is not installed"
    return {"name": name, "overrides": list(overrides), "milliseconds": milliseconds, "spread": spread} | {
        "distance": 1e-7,
        "memory_mib": 3.0,
        "missing": missing,
    }


def test_ratios_and_goals_in_words() -> None:
    """16 / 1 and 70 / 5 against 15; 4 / 1 and 21 / 5 against 4; 8 / 4.5 against 1.8; 32 * 1 / 20 against 1.5."""
    rows = [
        [_row("loop over tasks, create_graph", 16.0), _row("torch.func, vmap(grad)", 4.0), _row("eager", 1.0)],
        [_row("loop over tasks, create_graph", 70.0), _row("torch.func, vmap(grad)", 21.0), _row("eager", 5.0)],
    ]
    for some in rows:
        some.append(_row("JAX, jit(vmap(grad))", None))
    seeds = [_row("native", 8.0, "run.seeds=8"), _row("native", 4.5, "run.seeds=8", "run.threads=2")]
    seeds += [_row("eager", 1.0, "run.seeds=1"), _row("eager", 20.0, "run.seeds=32")]
    words = benchmark_markdown(
        {
            "machine": {"date": "2020-01-02", "processor": "P", "cores": 2, "versions": {"torch": "1"}},
            "workloads": [{"title": title, "rows": some} for title, some in zip(("one", "five"), rows, strict=True)],
            "seeds": seeds,
            "training_seconds": 16.0,
            "commands": {"--help": 0.2},
            "memory": [_row("eager", 7.0, "inner.recompute_activations=true")],
        }
    ).splitlines()
    assert words[0] == "2020-01-02, P, 2 cores; torch 1; one thread."
    for line in (
        "| `eager` | **1** (0.9 to 1.1) | **5** (4.5 to 5.5) |",
        "| JAX, jit(vmap(grad)) | jax is not installed | jax is not installed |",
        "| `eager` against the loop over tasks, 1 step; 5 steps | **16; 14** | ≥ 15 | **no** |",
        "| `eager` against torch.func, 1; 5 | **4; 4.2** | ≥ 4 | yes |",
        "| `native`, 8 seeds: 2 threads against 1 | **1.78** | ≥ 1.8 | **no** |",
        "| `eager`, 32 seeds side by side against one after the other | **1.6** | ≥ 1.5 | yes |",
        "| `maml train --config finn-10shot`, from start to finish | **16** | ≤ 15 | **no** |",
        "| `maml --help` | **0.2** | ≤ 0.25 | yes |",
        "| `eager`, recomputing | 3 | 7 |",
    ):
        assert line in words, line


def test_a_contender_that_fails_is_said_and_the_others_are_timed() -> None:
    rows = benchmark.measure(
        [benchmark.Contender("no such engine", []), benchmark.Contender("eager", ["model.hidden=[4]"])],
        rounds=1,
        seconds=0.01,
    )
    assert rows[0]["milliseconds"] is None and rows[0]["missing"] == "failed"
    assert rows[1]["milliseconds"] > 0 and torch.tensor(rows[1]["distance"]) < 1e-5
