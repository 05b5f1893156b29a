"""Tables of the benchmark, in Markdown: milliseconds per outer step, ratios with their goals, seconds, memory."""

import math
from collections.abc import Sequence

from maml_cli.dev.benchmark_document import Benchmark, Machine, Scaling, Timing, Workload
from maml_cli.dev.markdown import format_cell, table, yes_or_no
from maml_cli.reporting import format_short

ENGINES = ("reference", "eager", "compiled", "native")
LOOP, FUNC, JAX = "loop over tasks, create_graph", "torch.func, vmap(grad)", "JAX, jit(vmap(grad))"
MAX_TRAINING_SECONDS = 15.0
MAX_COMMAND_SECONDS = 0.25


def benchmark_markdown(benchmark: Benchmark) -> str:
    """All tables, after a line about the machine."""
    tables = [f"{machine_line(benchmark.machine)}\n", contender_table(benchmark.workloads)]
    if scaling := benchmark.scaling:
        tables += [ratio_table(benchmark.workloads, scaling), seconds_table(scaling), memory_table(scaling)]
    return "\n".join(tables)


def machine_line(machine: Machine) -> str:
    """Date, machine and versions."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return f"{machine.date}, {machine.processor}, {machine.cores} cores; {versions}; one thread."


def contender_table(workloads: Sequence[Workload]) -> str:
    """Milliseconds per outer step of each contender on each workload."""
    names = dict.fromkeys(row.name for workload in workloads for row in workload.rows)
    rows = [[_label(name), *(_cell(_find(workload.rows, name)) for workload in workloads)] for name in names]
    return table(["milliseconds per outer step", *(workload.title for workload in workloads)], rows)


def summary_table(benchmark: Benchmark) -> str:
    """The short table of the README: the medians of the workloads with a fixed alpha."""
    workloads = benchmark.workloads[:2]
    names = dict.fromkeys(row.name for workload in workloads for row in workload.rows)
    rows = [[_label(name), *(_median(_find(workload.rows, name)) for workload in workloads)] for name in names]
    return table(["milliseconds per outer step", *(workload.title for workload in workloads)], rows)


def ratio_table(workloads: Sequence[Workload], scaling: Scaling) -> str:
    """Ratios of medians, each with its goal."""
    fixed = [workload.rows for workload in workloads[:2]]
    fastest = [fastest_engine(rows) for rows in fixed]
    seeds = {(row.name, *row.overrides): row for row in scaling.seeds}
    two_threads = seeds["native", "run.seeds=8", "run.threads=2"]
    one_seed, many_seeds = seeds["eager", "run.seeds=1"], seeds["eager", "run.seeds=32"]
    ratios = [
        ("`eager` against the loop over tasks, 1 step; 5 steps", [_ratio(r, LOOP, "eager") for r in fixed], 15.0),
        ("`eager` against torch.func, 1; 5", [_ratio(rows, FUNC, "eager") for rows in fixed], 4.0),
        (
            f"`{fastest[0]}` against JAX, 1; 5",
            [_ratio(rows, JAX, name) for rows, name in zip(fixed, fastest, strict=True)],
            2.5,
        ),
        ("`native`, 8 seeds: 2 threads against 1", [times_as_fast(seeds["native", "run.seeds=8"], two_threads)], 1.8),
        ("`eager`, 32 seeds side by side against one by one", [32 * times_as_fast(one_seed, many_seeds)], 1.5),
    ]
    rows = [[words, _ratios_cell(values), f"≥ {goal:g}", _met(values, goal)] for words, values, goal in ratios]
    return table(["times as fast", "measured", "goal", "met"], rows)


def seconds_table(scaling: Scaling) -> str:
    """Wall-clock seconds of commands, each with its goal."""
    commands = {"train --config finn-10shot": (scaling.training_seconds, MAX_TRAINING_SECONDS)}
    commands |= {words: (seconds, MAX_COMMAND_SECONDS) for words, seconds in scaling.commands.items()}
    rows = [
        [f"`maml {words}`", f"**{format_cell(seconds)}**", f"≤ {goal:g}", yes_or_no(seconds <= goal)]
        for words, (seconds, goal) in commands.items()
    ]
    return table(["seconds from start to end", "measured", "goal", "met"], rows)


def memory_table(scaling: Scaling) -> str:
    """Memory and time of one large outer step."""
    rows = []
    for row in scaling.memory:
        recomputes = "inner.recompute_activations=true" in row.overrides
        memory = "" if row.memory_mib is None else f"{row.memory_mib:.0f}"
        rows.append([f"`{row.name}`{', recomputing' if recomputes else ''}", memory, _median(row)])
    return table(["one outer step of 1,000 tasks with 10 inner steps", "MiB", "milliseconds"], rows)


def fastest_engine(rows: Sequence[Timing]) -> str:
    """The engine with the smallest median."""
    timed = {row.name: row.milliseconds for row in rows if row.name in ENGINES and row.milliseconds is not None}
    return min(timed, key=lambda name: timed[name])


def times_as_fast(slow: Timing | None, fast: Timing | None) -> float:
    """The ratio of two medians; NaN where one was not timed."""
    if slow and fast and slow.milliseconds and fast.milliseconds:
        return slow.milliseconds / fast.milliseconds
    return float("nan")


def _ratio(rows: Sequence[Timing], slow: str, fast: str) -> float:
    return times_as_fast(_find(rows, slow), _find(rows, fast))


def _find(rows: Sequence[Timing], name: str) -> Timing | None:
    return next((row for row in rows if row.name == name), None)


def _label(name: str) -> str:
    return f"`{name}`" if name in ENGINES else name


def _median(row: Timing | None) -> str:
    if row is None:
        return ""
    return str(row.missing) if row.milliseconds is None else format_cell(row.milliseconds)


def _cell(row: Timing | None) -> str:
    if row is None or row.spread is None:
        return _median(row)
    low, high = row.spread
    return f"**{_median(row)}** ({format_cell(low)} to {format_cell(high)})"


def _ratios_cell(ratios: Sequence[float]) -> str:
    return f"**{'; '.join(format_short(ratio, overflow='not timed') for ratio in ratios)}**"


def _met(ratios: Sequence[float], goal: float) -> str:
    """Whether all ratios reach the goal; empty if one of them was not timed."""
    return "" if any(map(math.isnan, ratios)) else yes_or_no(all(ratio >= goal for ratio in ratios))
