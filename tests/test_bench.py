"""The benchmark: contenders are verified before they are timed, and its tables state what was measured."""

import ctypes
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor

from maml_cli.config import Config, load_config
from maml_cli.core import relative_distance
from maml_cli.dev import bench_commands, bench_worker, benchmark, contenders
from maml_cli.dev.arithmetic import MULTIPLY_ADDS, load_multiply_adds, outer_step_multiply_adds, task_multiply_adds
from maml_cli.dev.benchmark_document import (
    Benchmark,
    Machine,
    Scaling,
    Timing,
    Workload,
    read_benchmark,
    write_benchmark,
)
from maml_cli.dev.benchmark_tables import benchmark_markdown, times_as_fast
from maml_cli.dev.contenders import Contender, time_outer_steps
from maml_cli.dev.learner import Learner
from maml_cli.dev.other_libraries import COMPILED_FUNC, FUNC, JAX, LIBRARIES, Library
from maml_cli.engines import kernel_build
from maml_cli.runs.published import PUBLISHED

BY_PYTORCH = [name for name, library in LIBRARIES.items() if library.package is None and name != COMPILED_FUNC]
SMALL = ["model.hidden=[4]", "outer.tasks_per_step=2"]
ROOT = Path(__file__).parent.parent


def test_a_smoke_benchmark_verifies_and_times_its_contenders(tmp_path: Path) -> None:
    """Within 1e-5 of the reference engine, but not it: other arithmetic in float32. Libraries, where installed."""
    packages = {name: library.package for name, library in LIBRARIES.items()}
    libraries = [name for name, package in packages.items() if package and importlib.util.find_spec(package)]
    names = ["eager", FUNC, *libraries]
    benchmark.main(smoke=names, seconds=0.01, out=tmp_path)
    measured = read_benchmark(tmp_path / "bench.json")
    (workload,) = measured.workloads
    assert [row.name for row in workload.rows] == names and measured.scaling is None
    for row in workload.rows:
        assert row.milliseconds and row.distance and 0 < row.distance < 1e-5 and row.missing is None
        assert row.wall == (row.milliseconds,) and 0 < row.processor[0] < 2 * row.wall[0]  # one round


def test_a_contender_that_fails_is_reported_and_the_others_are_timed() -> None:
    unknown, eager = time_outer_steps(
        [Contender("no such engine", []), Contender("eager", SMALL)], rounds=1, seconds=0.01
    )
    assert unknown.milliseconds is None and unknown.missing == "failed"
    assert eager.milliseconds and eager.memory_mib is not None and eager.distance is None


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, library in LIBRARIES.items():
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        expected = f"{library.package} is not installed" if library.package else "failed"
        assert contenders._why_missing(name) == expected
        monkeypatch.setattr("importlib.util.find_spec", lambda name: "a spec")
        assert contenders._why_missing(name) == "failed"


def test_another_meta_gradient_stops_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [_row("eager", 1.0), _row("native", 1.0)._replace(distance=2e-5)]
    monkeypatch.setattr(benchmark, "time_verified", lambda *arguments, **options: rows)
    with pytest.raises(AssertionError, match="not the meta-gradient of the reference engine: native"):
        benchmark.run_workload("title", [], rounds=1, seconds=0.01)


@pytest.mark.parametrize("name", BY_PYTORCH)
def test_a_library_computes_the_second_order_meta_gradient(name: str) -> None:
    """To 1e-5 in float32; the first-order gradient is further away than that."""
    config = bench_worker.bench_config(SMALL)
    expected = bench_worker.reference_gradient(config)
    assert relative_distance([_gradient(name, config)], [expected]) < bench_worker.TOLERANCE
    first_order = bench_worker.reference_gradient(bench_worker.bench_config([*SMALL, "inner.order=first"]))
    assert relative_distance([first_order], [expected]) > 10 * bench_worker.TOLERANCE


def test_a_library_computes_the_gradient_of_learned_alphas() -> None:
    """In the order of the engines: all steps of a parameter's alpha, then those of the next parameter."""
    config = bench_worker.bench_config([*SMALL, *benchmark.LEARNED, "inner.steps=3"])
    expected = bench_worker.reference_gradient(config)
    assert len(expected) == (1 + 3) * (1 * 4 + 4 + 4 * 1 + 1)
    assert relative_distance([_gradient(FUNC, config)], [expected]) < bench_worker.TOLERANCE


def _gradient(name: str, config: Config) -> Tensor:
    gradient = bench_worker.library_worker(name, config).gradient
    assert gradient is not None
    return gradient()


def test_milliseconds_are_those_of_one_outer_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances by a second with each look at it: 1 + 2 + 4 steps in four looks are 4 s; another by 7."""
    looks, used = iter(range(100)), iter(range(0, 100, 7))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(looks)))
    monkeypatch.setattr("time.process_time", lambda: float(next(used)))
    measured = bench_worker.outer_step_milliseconds(lambda count: count, 4.0)
    assert [*measured] == pytest.approx([1e3 * 4 / 7, 1e3])


def test_a_learner_that_takes_ten_steps_a_call_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for 1 it takes 10, for 25 it takes 20: whole calls, at least one."""
    calls = []
    learner = Learner(lambda points: [], lambda: calls.append(1), steps_per_call=10)
    monkeypatch.setitem(LIBRARIES, "ten", Library(lambda problem: learner))
    advance = bench_worker.library_worker("ten", bench_worker.bench_config(SMALL)).advance
    assert (advance(1), advance(25), len(calls)) == (10, 20, 3)


def test_a_process_computes_on_its_first_cores_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = []
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {7, 3, 5}, raising=False)
    monkeypatch.setattr("os.sched_setaffinity", lambda process, cores: pinned.append([*cores]), raising=False)
    bench_worker.pin_to_cores(1)
    bench_worker.pin_to_cores(2)
    assert pinned == [[3], [3, 5]]


def test_multiply_adds_are_counted_as_derived_by_hand() -> None:
    """1-40-40-1 with 10 points: 9 S + 3 products of 10 x 40 x 40, and for the outer layers 4 S + 2 of 10 x 1 x 40 and
    9 S + 3 of 10 x 40 x 1. Two layers of 2 and 3 units with 1 and 5 points, by the same rules."""
    for steps in (1, 5):
        expected = 16_000 * (9 * steps + 3) + 400 * (4 * steps + 2) + 400 * (9 * steps + 3)
        assert task_multiply_adds([1, 40, 40, 1], 10, 10, steps) == expected
    assert task_multiply_adds([1, 2, 3, 1], 1, 5, 1) == (4 * 2 + 9 * (6 + 3)) + 5 * (2 * 2 + 3 * (6 + 3))
    config = bench_worker.bench_config(["run.seeds=3", "outer.tasks_per_step=7"])
    assert outer_step_multiply_adds(config) == 3 * 7 * (16_000 * 12 + 400 * 6 + 400 * 12)


@pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler")
def test_the_limit_computes_as_many_multiply_adds_as_asked() -> None:
    """Of 12 sums, of which the first starts at 0 and approaches 1 by 0.999 z + 0.001, 12 x lanes a pass."""
    library = load_multiply_adds()
    library.multiply_adds.restype = ctypes.c_float
    one_pass = [n for n in (4, 8, 16) if library.multiply_adds(ctypes.c_int64(12 * n)) == pytest.approx(_sum_after(1))]
    lanes = max(one_pass)
    assert library.multiply_adds(ctypes.c_int64(50 * 12 * lanes)) == pytest.approx(_sum_after(50), rel=1e-4)


def _sum_after(passes: int) -> float:
    return sum(1 + (start - 1) * 0.999**passes for start in range(12))


def test_other_libraries_and_native_are_left_out_where_they_cannot_train() -> None:
    fixed = {contender.name for contender in benchmark.supported(["inner.steps=1"])}
    assert fixed >= {*LIBRARIES, "reference", "eager", MULTIPLY_ADDS}
    learned = {contender.name for contender in benchmark.supported(benchmark.LEARNED)}
    assert learned >= {"reference", "eager", MULTIPLY_ADDS}
    assert learned & set(LIBRARIES) == {FUNC, COMPILED_FUNC, *JAX}
    by_rmsprop = {contender.name for contender in benchmark.supported(["outer.optimizer=rmsprop"])}
    assert "native" not in by_rmsprop and "reference" in by_rmsprop


def test_every_config_of_the_benchmark_is_valid() -> None:
    timed = [*benchmark.SEEDS, *benchmark.MEMORY]
    growth = [pattern.format(value) for pattern, values in benchmark.GROWTH.values() for value in values]
    for preset in benchmark.PRESETS:
        load_config(preset)
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
    """Three rounds, of which the first is 0.9 and the last 1.1 times the median; half of it is processor time."""
    wall = () if milliseconds is None else tuple(factor * milliseconds for factor in (0.9, 1.0, 1.1))
    processor = tuple(value / 2 for value in wall)
    missing = None if milliseconds else "jax is not installed"
    return Timing(name, "finn-10shot", overrides, wall, processor, 1e-7, 3.0, missing)


def test_a_ratio_is_taken_round_by_round() -> None:
    """2 / 1 and 9 / 3 are 2 and 3, where the ratio of the medians would be 5.5 / 2; 1.5 ms was the median."""
    slow, fast = _row("a", 1.0)._replace(wall=(2.0, 9.0)), _row("b", 1.0)._replace(wall=(1.0, 3.0))
    assert times_as_fast(slow, fast) == [2.0, 3.0] and fast.milliseconds == 2.0
    assert times_as_fast(slow, _row("b", None)) == times_as_fast(None, fast) == []


def test_ratios_and_seconds_are_held_against_their_goals() -> None:
    """JAX 3 and 6 (5 of products), compiled torch.func 6 and 12, native 1 and 2 of which 0.78 and 1.6 at the peak."""
    one_step = [
        _row("native", 1.0),
        _row("eager", 6.0),
        _row(COMPILED_FUNC, 6.0),
        _row(JAX[0], 3.0),
        _row(JAX[1], None),
    ]
    five_steps = [_row("native", 2.0), _row("eager", 13.0), _row(COMPILED_FUNC, 12.0), _row(JAX[0], 6.0)]
    five_steps.append(_row(JAX[1], 5.0))
    one_step, five_steps = [*one_step, _row(MULTIPLY_ADDS, 0.78)], [*five_steps, _row(MULTIPLY_ADDS, 1.6)]
    seeds = [_row("native", 8.0, "run.seeds=8"), _row("native", 4.0, "run.seeds=8", "run.threads=2")]
    seeds += [_row("eager", 1.0, "run.seeds=1"), _row("eager", 20.0, "run.seeds=32")]
    memory = [_row("eager", 7.0, "inner.recompute_activations=true")]
    presets = [Workload("best-5shot", [_row("native", 1.0), _row("eager", 4.0)]), Workload("p", [_row("eager", 2.0)])]
    seconds = {bench_commands.TRAINING_LABEL: 10.5, bench_commands.EVALUATION_LABEL: 1.5, "`maml --help`": 0.2}
    machine = Machine("2020-01-02", "P", 2, ["cpu"], {"torch": "1"})
    scaling = Scaling(presets, seeds, [], memory, seconds)
    tables = benchmark_markdown(
        Benchmark(machine, [Workload("1", one_step), Workload("5", five_steps)], scaling)
    ).splitlines()
    assert tables[0] == "2020-01-02, P, 2 cores; torch 1; one thread."
    for line in (
        "| `native` | **1** (0.9 to 1.1), 0.5 | **2** (1.8 to 2.2), 1 |",
        f"| {JAX[1]} | jax is not installed | **5** (4.5 to 5.5), 2.5 |",
        "| `native` | 0.78 | 0.80 |",
        "| `native` against the faster form in JAX, 1 step; 5 steps | **3** (3 to 3); **2.5** (2.5 to 2.5) | "
        "≥ 2.8; 2.9 | **no** |",
        "| `native` against compiled torch.func, 1; 5 | **6** (6 to 6); **6** (6 to 6) | ≥ 6; 5.5 | yes |",
        "| `native`, share of the peak, 1; 5 | **0.78** (0.78 to 0.78); **0.8** (0.8 to 0.8) | ≥ 0.78; 0.82 | **no** |",
        "| `eager` against compiled torch.func, 1; 5 | **1** (1 to 1); **0.923** (0.923 to 0.923) | ≥ 1 | **no** |",
        "| `native`, 8 seeds: 2 threads against 1 | **2** (2 to 2) | ≥ 1.85 | yes |",
        "| `eager`, 32 seeds side by side against one by one | **1.6** (1.6 to 1.6) | ≥ 1.5 | yes |",
        "| `best-5shot` | `native` | **1** (0.9 to 1.1), 0.5 | **4** (3.6 to 4.4), 2 | **4** (4 to 4) | ≥ 5 | **no** |",
        "| `p` | `eager` | **2** (1.8 to 2.2), 1 | **2** (1.8 to 2.2), 1 | **1** (1 to 1) | ≥ 5 | **no** |",
        "| `maml train --config finn-10shot` | **10.5** | ≤ 11 | yes |",
        "| `maml eval`, 10,000 tasks and 10 steps, beyond the import of torch | **1.5** | ≤ 1 | **no** |",
        "| `maml --help` | **0.2** | ≤ 0.25 | yes |",
        "| `eager`, recomputing | 3 | 7 |",
    ):
        assert line in tables, line


def test_a_ratio_that_was_not_timed_meets_no_goal() -> None:
    tables = benchmark_markdown(
        Benchmark(
            Machine("", "P", 2, [], {}),
            [Workload("1", [_row("native", 1.0)]), Workload("5", [_row("native", 1.0)])],
            Scaling(
                [],
                [_row("native", 1.0, *words) for words in (["run.seeds=8"], ["run.seeds=8", "run.threads=2"])]
                + [_row("eager", 1.0, words) for words in ("run.seeds=1", "run.seeds=32")],
                [],
                [],
                {},
            ),
        )
    )
    assert "| `eager` against compiled torch.func, 1; 5 | **not timed**; **not timed** | ≥ 1 |  |" in tables


def test_the_benchmark_measures_and_writes_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each contender takes 7 ms and each command 0.2 s: the engines are timed along each axis, alone."""

    def timed(timed: Sequence[Contender], *, rounds: int, seconds: float) -> list[Timing]:
        return [_row(contender.name, 7.0, *contender.overrides) for contender in timed]

    commands: list[Sequence[str]] = []

    def process_seconds(arguments: Sequence[str], environment: object = None) -> float:
        commands.append(arguments)
        return 0.2 if "maml_cli" in arguments else 0.05

    monkeypatch.setattr(benchmark, "time_verified", timed)
    monkeypatch.setattr(benchmark, "time_outer_steps", timed)
    monkeypatch.setattr(bench_commands, "process_seconds", process_seconds)
    monkeypatch.setattr(benchmark, "PRESETS", ("smoke", "finn-10shot"))
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
    assert [workload.title for workload in measured.scaling.presets] == ["smoke", "finn-10shot"]
    assert [row.name for row in measured.scaling.presets[0].rows] == ["eager"]  # too short to repay a kernel
    seconds = measured.scaling.seconds
    assert seconds["`maml --help`"] == 0.2 and seconds[bench_commands.EVALUATION_LABEL] == pytest.approx(0.15)
    assert [words[2] for words in commands[-2:]] == ["train"] * 2 and "outer.steps=1" in commands[-2]
    assert (tmp_path / "bench-growth.png").stat().st_size > 1000
    assert "| `eager`, 32 seeds side by side against one by one | **32** (32 to 32) |" in capsys.readouterr().out
