"""The benchmark: `make bench` times engines and other libraries on the same outer steps, each in its own process.

Every contender shows its meta-gradient before it is timed. Times differ between machines and moments; compare ratios
within one benchmark.
"""

import contextlib
import datetime
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from maml_cli.cli.exit_codes import exit_on_error
from maml_cli.config import Config, load_config
from maml_cli.dev import other_libraries
from maml_cli.dev.arithmetic import MULTIPLY_ADDS
from maml_cli.dev.bench_commands import run_commands
from maml_cli.dev.bench_worker import TOLERANCE
from maml_cli.dev.benchmark_document import Benchmark, Growth, Machine, Scaling, Timing, Workload, write_benchmark
from maml_cli.dev.benchmark_tables import ENGINES, benchmark_markdown
from maml_cli.dev.contenders import Contender, time_outer_steps, time_verified
from maml_cli.dev.published_figures import draw_benchmark
from maml_cli.runtime import available_devices

# The learning rate is so small that the network hardly moves: without clipping, thousands of steps would diverge.
LEARNED = ["inner.alpha.learned=true", "inner.alpha.per=parameter", "inner.alpha.per_step=true", "outer.lr=1e-6"]
WORKLOADS = {
    "1 inner step": ["inner.steps=1"],
    "5 inner steps": ["inner.steps=5"],
    "5 steps, alpha learned per parameter and step": ["inner.steps=5", *LEARNED],
}
PRESETS = (
    *("best-5shot", "best-10shot", "best-frequency-5shot", "ridge-10shot", "ridge-body-10shot"),
    *("cavia-10shot", "bias-input-10shot", "reptile-10shot", "mmaml-2modes"),
)
"""Learners that users train, each by the engine that they get and by eager."""
SMOKE = ["outer.tasks_per_step=3", "model.hidden=[8,8]"]
SEEDS = [
    Contender("native", ["run.seeds=8"]),
    Contender("native", ["run.seeds=8", "run.threads=2"]),
    Contender("eager", ["run.seeds=1"]),
    Contender("eager", ["run.seeds=32"]),
    Contender("native", ["run.seeds=1"]),
    Contender("native", ["run.seeds=32"]),
]
GROWTH = {
    "inner steps": ("inner.steps={}", (1, 2, 5, 10)),
    "tasks in an outer step": ("outer.tasks_per_step={}", (25, 250, 2500)),
    "width of the layers": ("model.hidden=[{0},{0}]", (40, 80, 160, 256)),
}
LARGE_STEP = ["inner.steps=10", "outer.tasks_per_step=1000"]
MEMORY = [
    Contender("reference", LARGE_STEP),
    Contender("eager", LARGE_STEP),
    Contender("eager", [*LARGE_STEP, "inner.recompute_activations=true"]),
    Contender("native", LARGE_STEP),
]


def describe_machine() -> Machine:
    """This machine, and the versions of the libraries."""
    versions = {"python": platform.python_version()}
    for name in ("torch", "jax", "optax", "higher", "torchopt"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    return Machine(datetime.date.today().isoformat(), processor, os.cpu_count() or 1, available_devices(), versions)


def run_workload(title: str, contenders: Sequence[Contender], *, rounds: int, seconds: float) -> Workload:
    """Time `contenders`; raises AssertionError if one of them computes another meta-gradient than the reference."""
    rows = time_verified(contenders, rounds=rounds, seconds=seconds)
    mismatched = [row.name for row in rows if row.distance is not None and row.distance > TOLERANCE]
    if mismatched:
        raise AssertionError(f"not the meta-gradient of the reference engine: {', '.join(mismatched)}")
    return Workload(title, rows)


def supported(overrides: Sequence[str]) -> list[Contender]:
    """The contenders that can train finn-10shot with `overrides`, the multiply-adds alone last."""
    config = load_config("finn-10shot", overrides).config
    learned = config.inner.alpha.learned
    libraries = [name for name, library in other_libraries.LIBRARIES.items() if library.learns_alpha or not learned]
    engines = [name for name in ENGINES if _is_supported(name, config)]
    return [Contender(name, overrides) for name in [*libraries, *engines, MULTIPLY_ADDS]]


def _is_supported(engine: str, config: Config) -> bool:
    import torch

    from maml_cli.engines import registry

    return registry.unsupported(engine, config, torch.device("cpu")) is None


def run_presets(*, rounds: int, seconds: float) -> list[Workload]:
    """For each of PRESETS, the engine that `run.engine: auto` chooses, and eager."""
    import torch

    from maml_cli.engines import registry

    workloads = []
    for preset in PRESETS:
        default = registry.choose_engine(load_config(preset, []).config, torch.device("cpu")).name
        contenders = [Contender(name, config=preset) for name in dict.fromkeys([default, "eager"])]
        workloads.append(Workload(preset, time_outer_steps(contenders, rounds=rounds, seconds=seconds)))
        typer.echo(f"timed: {preset}", err=True)
    return workloads


def run_growth(*, seconds: float) -> list[Growth]:
    """The time of an outer step along each axis of GROWTH, for three engines."""
    return [
        Growth(axis, value, *time_outer_steps([Contender(name, [pattern.format(value)])], rounds=1, seconds=seconds))
        for axis, (pattern, values) in GROWTH.items()
        for value in values
        for name in ("reference", "eager", "native")
    ]


def run_scaling(*, rounds: int, seconds: float) -> Scaling:
    """Time presets, seeds side by side, growth, memory and commands."""
    presets = run_presets(rounds=rounds, seconds=seconds)
    seeds = time_verified(SEEDS, rounds=rounds, seconds=seconds)
    typer.echo("timed: seeds side by side", err=True)
    growth = run_growth(seconds=seconds)
    typer.echo("timed: growth", err=True)
    memory: list[Timing] = []
    for contender in MEMORY:
        memory += time_outer_steps([contender], rounds=1, seconds=seconds)
    return Scaling(presets, seeds, growth, memory, run_commands(rounds=rounds))


def run_benchmark(*, rounds: int, seconds: float, out: Path) -> Benchmark:
    """All workloads with all contenders, which are written to `out` before the scaling is measured, and the scaling."""
    workloads = []
    for title, overrides in WORKLOADS.items():
        workloads.append(run_workload(title, supported(overrides), rounds=rounds, seconds=seconds))
        typer.echo(f"timed: {title}", err=True)
    benchmark = Benchmark(describe_machine(), workloads, None)
    write_benchmark(out / "bench.json", benchmark)
    return benchmark._replace(scaling=run_scaling(rounds=rounds, seconds=seconds))


def run_smoke(names: Sequence[str], *, seconds: float) -> Benchmark:
    """A test of the benchmark itself: one small workload with the contenders `names`."""
    title, overrides = next(iter(WORKLOADS.items()))
    contenders = [Contender(name, [*overrides, *SMOKE]) for name in names]
    return Benchmark(describe_machine(), [run_workload(title, contenders, rounds=1, seconds=seconds)], None)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender is timed.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.01, help="How long a contender is timed in each round.")] = 0.5,
    smoke: Annotated[
        list[str] | None, typer.Option(help="Only these contenders, once, on a small network: does it run?")
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory of bench.json and the figure.")] = Path("outputs"),
) -> None:
    """Time every engine and library on finn-10shot; print the tables, and write bench.json."""
    out.mkdir(parents=True, exist_ok=True)
    benchmark = run_smoke(smoke, seconds=seconds) if smoke else run_benchmark(rounds=rounds, seconds=seconds, out=out)
    write_benchmark(out / "bench.json", benchmark)
    typer.echo(benchmark_markdown(benchmark))
    draw_benchmark(benchmark, out)


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
