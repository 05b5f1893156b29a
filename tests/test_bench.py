"""The benchmark: contenders are verified before they are timed, and its tables state what was measured."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from maml_cli.config import load_config
from maml_cli.core import relative_distance
from maml_cli.dev import bench_worker, benchmark, contenders, other_libraries
from maml_cli.dev.benchmark_document import (
    Benchmark,
    Machine,
    Scaling,
    Timing,
    Workload,
    read_benchmark,
    write_benchmark,
)
from maml_cli.dev.benchmark_tables import benchmark_markdown
from maml_cli.dev.contenders import Contender, time_outer_steps
from maml_cli.dev.learner import Learner, Problem
from maml_cli.runs.published import PUBLISHED

LOOP, FUNC, JAX = "loop over tasks, create_graph", "torch.func, vmap(grad)", "JAX, jit(vmap(grad))"
SMALL = ["model.hidden=[4]", "outer.tasks_per_step=2"]
ROOT = Path(__file__).parent.parent


def test_a_smoke_benchmark_verifies_and_times_its_contenders(tmp_path: Path) -> None:
    """Within 1e-5 of the reference engine, but not it: other arithmetic in float32. Libraries, where installed."""
    libraries = [name for name, package in other_libraries.PACKAGES.items() if importlib.util.find_spec(package)]
    names = ["eager", FUNC, *libraries]
    benchmark.main(smoke=names, seconds=0.01, out=tmp_path)
    measured = read_benchmark(tmp_path / "bench.json")
    (workload,) = measured.workloads
    assert [row.name for row in workload.rows] == names and measured.scaling is None
    for row in workload.rows:
        assert row.milliseconds and row.distance and 0 < row.distance < 1e-5 and row.missing is None
        assert row.spread == (row.milliseconds, row.milliseconds)  # one round


def test_a_contender_that_fails_is_reported_and_the_others_are_timed() -> None:
    unknown, eager = time_outer_steps(
        [Contender("no such engine", []), Contender("eager", SMALL)], rounds=1, seconds=0.01
    )
    assert unknown.milliseconds is None and unknown.missing == "failed"
    assert eager.milliseconds and eager.memory_mib is not None and eager.distance is None


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, package in other_libraries.PACKAGES.items():
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert contenders._why_missing(name) == f"{package} is not installed"
        monkeypatch.setattr("importlib.util.find_spec", lambda name: "a spec")
        assert contenders._why_missing(name) == "failed"


def test_another_meta_gradient_stops_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [_row("eager", 1.0), _row("native", 1.0)._replace(distance=2e-5)]
    monkeypatch.setattr(benchmark, "time_verified", lambda *arguments, **options: rows)
    with pytest.raises(AssertionError, match="not the meta-gradient of the reference engine: native"):
        benchmark.run_workload("title", [], rounds=1, seconds=0.01)


@pytest.mark.parametrize("name", [LOOP, FUNC])
def test_a_library_computes_the_second_order_meta_gradient(name: str) -> None:
    """To 1e-5 in float32; the first-order gradient is further away than that."""
    config = bench_worker.bench_config(SMALL)
    expected = bench_worker.reference_gradient(config)
    actual = bench_worker.library_worker(name, config).gradient()
    assert relative_distance([actual], [expected]) < bench_worker.TOLERANCE
    first_order = bench_worker.reference_gradient(bench_worker.bench_config([*SMALL, "inner.order=first"]))
    assert relative_distance([first_order], [expected]) > 10 * bench_worker.TOLERANCE


def test_milliseconds_are_those_of_one_outer_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances by a second with each look at it: 1 + 2 + 4 steps in four looks are 4 s."""
    looks = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(looks)))
    assert bench_worker.outer_step_milliseconds(lambda count: count, 4.0) == pytest.approx(1e3 * 4 / 7)


def test_a_learner_that_takes_ten_steps_a_call_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for 1 it takes 10, for 25 it takes 20: whole calls, at least one."""
    calls = []
    learner = Learner(lambda points: [], lambda: calls.append(1), steps_per_call=10)
    make: Callable[[Problem], Learner] = lambda problem: learner  # noqa: E731
    monkeypatch.setitem(other_libraries.LIBRARIES, "ten", make)
    advance = bench_worker.library_worker("ten", bench_worker.bench_config(SMALL)).advance
    assert (advance(1), advance(25), len(calls)) == (10, 20, 3)


def test_other_libraries_and_native_are_left_out_where_they_cannot_train() -> None:
    fixed = {contender.name for contender in benchmark.supported(["inner.steps=1"])}
    assert fixed >= {*other_libraries.LIBRARIES, "reference", "eager"}
    learned = {contender.name for contender in benchmark.supported(benchmark.LEARNED)}
    assert learned >= {"reference", "eager"} and not learned & set(other_libraries.LIBRARIES)
    by_adam = {contender.name for contender in benchmark.supported(["inner.optimizer=adam"])}
    assert "native" not in by_adam and "reference" in by_adam


def test_every_config_of_the_benchmark_is_valid() -> None:
    timed = [*benchmark.SEEDS, *benchmark.MEMORY]
    growth = [pattern.format(value) for pattern, values in benchmark.GROWTH.values() for value in values]
    for overrides in [
        *benchmark.WORKLOADS.values(),
        *(contender.overrides for contender in timed),
        *([change] for change in growth),
    ]:
        load_config("finn-10shot", overrides)


def test_the_committed_benchmark_is_as_it_would_be_written(tmp_path: Path) -> None:
    committed = ROOT / PUBLISHED / "bench.json"
    write_benchmark(tmp_path / "bench.json", read_benchmark(committed))
    assert (tmp_path / "bench.json").read_bytes() == committed.read_bytes()


def _row(name: str, milliseconds: float | None, *overrides: str) -> Timing:
    spread = None if milliseconds is None else (milliseconds * 0.9, milliseconds * 1.1)
    return Timing(name, overrides, milliseconds, spread, 1e-7, 3.0, None if milliseconds else "jax is not installed")


def test_ratios_and_seconds_are_held_against_their_goals() -> None:
    """16 / 1 and 70 / 5 against 15; 4 / 1 and 21 / 5 against 4; 8 / 4.5 against 1.8; 32 * 1 / 20 against 1.5."""
    one_step = [_row(LOOP, 16.0), _row(FUNC, 4.0), _row("eager", 1.0), _row(JAX, None)]
    five_steps = [_row(LOOP, 70.0), _row(FUNC, 21.0), _row("eager", 5.0), _row(JAX, None)]
    seeds = [_row("native", 8.0, "run.seeds=8"), _row("native", 4.5, "run.seeds=8", "run.threads=2")]
    seeds += [_row("eager", 1.0, "run.seeds=1"), _row("eager", 20.0, "run.seeds=32")]
    memory = [_row("eager", 7.0, "inner.recompute_activations=true")]
    scaling = Scaling(seeds, [], memory, commands={"--help": 0.2}, training_seconds=16.0)
    machine = Machine("2020-01-02", "P", 2, ["cpu"], {"torch": "1"})
    tables = benchmark_markdown(
        Benchmark(machine, [Workload("1", one_step), Workload("5", five_steps)], scaling)
    ).splitlines()
    assert tables[0] == "2020-01-02, P, 2 cores; torch 1; one thread."
    for line in (
        "| `eager` | **1** (0.9 to 1.1) | **5** (4.5 to 5.5) |",
        "| JAX, jit(vmap(grad)) | jax is not installed | jax is not installed |",
        "| `eager` against the loop over tasks, 1 step; 5 steps | **16; 14** | ≥ 15 | **no** |",
        "| `eager` against torch.func, 1; 5 | **4; 4.2** | ≥ 4 | yes |",
        "| `eager` against JAX, 1; 5 | **not timed; not timed** | ≥ 2.5 |  |",
        "| `native`, 8 seeds: 2 threads against 1 | **1.78** | ≥ 1.8 | **no** |",
        "| `eager`, 32 seeds side by side against one by one | **1.6** | ≥ 1.5 | yes |",
        "| `maml train --config finn-10shot` | **16** | ≤ 15 | **no** |",
        "| `maml --help` | **0.2** | ≤ 0.25 | yes |",
        "| `eager`, recomputing | 3 | 7 |",
    ):
        assert line in tables, line


def test_the_benchmark_measures_and_writes_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each contender takes 7 ms and each command 0.2 s: the engines are timed along each axis, alone."""

    def timed(timed: Sequence[Contender], *, rounds: int, seconds: float) -> list[Timing]:
        return [_row(contender.name, 7.0, *contender.overrides) for contender in timed]

    commands: list[Sequence[str]] = []

    def command_seconds(arguments: Sequence[str], *, repeats: int) -> float:
        commands.append(arguments)
        return 0.2

    monkeypatch.setattr(benchmark, "time_verified", timed)
    monkeypatch.setattr(benchmark, "time_outer_steps", timed)
    monkeypatch.setattr(benchmark, "command_seconds", command_seconds)
    monkeypatch.setattr(benchmark, "GROWTH", {"inner steps": ("inner.steps={}", (1, 2))})
    benchmark.main(rounds=1, seconds=0.01, out=tmp_path)
    measured = read_benchmark(tmp_path / "bench.json")
    assert [workload.title for workload in measured.workloads] == [*benchmark.WORKLOADS]
    assert measured.scaling
    assert [(row.axis, row.value, row.timing.name, row.timing.overrides) for row in measured.scaling.growth] == [
        ("inner steps", steps, name, (f"inner.steps={steps}",))
        for steps in (1, 2)
        for name in ("reference", "eager", "native")
    ]
    assert [row.name for row in measured.scaling.memory] == ["reference", "eager", "eager", "native"]
    assert measured.scaling.commands == {"--help": 0.2, "config show finn-10shot": 0.2, "presets": 0.2}
    assert [words[0] for words in commands[-2:]] == ["train", "train"] and "outer.steps=10" in commands[-2]
    assert (tmp_path / "bench-growth.png").stat().st_size > 1000
    assert "| `eager`, 32 seeds side by side against one by one | **32** |" in capsys.readouterr().out
