"""Tables of the benchmark, in Markdown: milliseconds per outer step, ratios with their goals, seconds, memory."""

import statistics
from collections.abc import Sequence

from maml_cli.dev.arithmetic import MULTIPLY_ADDS
from maml_cli.dev.bench_commands import MAX_LIGHT_SECONDS, MAX_SECONDS
from maml_cli.dev.benchmark_document import Benchmark, Machine, Scaling, Timing, Workload
from maml_cli.dev.markdown import format_cell, table, yes_or_no
from maml_cli.dev.other_libraries import COMPILED_FUNC, JAX

ENGINES = ("reference", "eager", "compiled", "native")
Ratios = Sequence[float]
"""A ratio of each round; empty if it was not timed."""


def benchmark_markdown(benchmark: Benchmark) -> str:
    """All tables, after a line about the machine."""
    workloads = benchmark.workloads
    tables = [f"{machine_line(benchmark.machine)}\n", contender_table(workloads), share_table(workloads)]
    if scaling := benchmark.scaling:
        tables += [ratio_table(workloads, scaling), preset_table(scaling.presets)]
        tables += [seconds_table(scaling.seconds), memory_table(scaling)]
    return "\n".join(tables)


def machine_line(machine: Machine) -> str:
    """Date, machine and versions."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return f"{machine.date}, {machine.processor}, {machine.cores} cores; {versions}; one thread."


def contender_table(workloads: Sequence[Workload]) -> str:
    """Milliseconds per outer step of each contender on each workload: time with its range, processor time."""
    names = dict.fromkeys(row.name for workload in workloads for row in workload.rows)
    rows = [[_label(name), *(_cell(_find(workload.rows, name)) for workload in workloads)] for name in names]
    return table(["milliseconds per outer step (range), of processor time", *(w.title for w in workloads)], rows)


def summary_table(benchmark: Benchmark) -> str:
    """The short table of the README, the medians of the workloads with a fixed alpha, and what the fastest give."""
    workloads = benchmark.workloads[:2]
    names = dict.fromkeys(row.name for workload in workloads for row in workload.rows)
    rows = [[_label(name), *(_median(_find(workload.rows, name)) for workload in workloads)] for name in names]
    medians = table(["milliseconds per outer step", *(workload.title for workload in workloads)], rows)
    fixed = [workload.rows for workload in workloads]
    jax = _in_words([_ratios(rows, _fastest(rows, JAX), "native") for rows in fixed])
    compiled = {name: _in_words([_ratios(rows, COMPILED_FUNC, name) for rows in fixed]) for name in ("native", "eager")}
    return f"""{medians}
`native` is {jax} times as fast as the faster form in JAX, and {compiled["native"]} times as fast as
compiled torch.func; `eager`, which needs no compiler, {compiled["eager"]} times as fast as the latter.
"""


def _in_words(ratios: Sequence[Ratios]) -> str:
    return " and ".join(format_cell(statistics.median(values)) if values else "(not timed)" for values in ratios)


def share_table(workloads: Sequence[Workload]) -> str:
    """The share of the peak that each contender reaches: the time of the multiply-adds alone over its own."""
    names = dict.fromkeys(row.name for workload in workloads for row in workload.rows if row.name != MULTIPLY_ADDS)
    shares = {name: [_ratios(workload.rows, MULTIPLY_ADDS, name) for workload in workloads] for name in names}
    rows = [[_label(name), *map(_ratio_cell, ratios)] for name, ratios in shares.items() if any(ratios)]
    return table(["share of the multiply-add peak", *(workload.title for workload in workloads)], rows)


def ratio_table(workloads: Sequence[Workload], scaling: Scaling) -> str:
    """Medians and ranges of the ratios of each round, each with its goal."""
    fixed = [workload.rows for workload in workloads[:2]]
    seeds = {(row.name, *row.overrides): row for row in scaling.seeds}
    two_threads = times_as_fast(seeds["native", "run.seeds=8"], seeds["native", "run.seeds=8", "run.threads=2"])
    one_by_one = times_as_fast(seeds["eager", "run.seeds=1"], seeds["eager", "run.seeds=32"])
    side_by_side = [32 * ratio for ratio in one_by_one]
    jax = [_ratios(rows, _fastest(rows, JAX), "native") for rows in fixed]
    compiled = {name: [_ratios(rows, COMPILED_FUNC, name) for rows in fixed] for name in ("native", "eager")}
    ratios: list[tuple[str, list[Ratios], tuple[float, ...]]] = [
        ("`native` against the faster form in JAX, 1 step; 5 steps", jax, (2.8, 2.9)),
        ("`native` against compiled torch.func, 1; 5", compiled["native"], (6.0, 5.5)),
        ("`native`, share of the peak, 1; 5", [_ratios(rows, MULTIPLY_ADDS, "native") for rows in fixed], (0.78, 0.82)),
        ("`eager` against compiled torch.func, 1; 5", compiled["eager"], (1.0, 1.0)),
        ("`native`, 8 seeds: 2 threads against 1", [two_threads], (1.85,)),
        ("`eager`, 32 seeds side by side against one by one", [side_by_side], (1.5,)),
    ]
    rows = [[words, *_goal_cells(values, goals)] for words, values, goals in ratios]
    return table(["times as fast", "measured", "goal", "met"], rows)


def preset_table(presets: Sequence[Workload]) -> str:
    """Milliseconds of each preset by the engine that a user gets and by eager, and their ratio with its goal."""
    rows = []
    for title, (default, *others) in presets:
        eager = others[0] if others else default
        cells = _goal_cells([times_as_fast(eager, default)], (5.0,))
        rows.append([f"`{title}`", f"`{default.name}`", _cell(default), _cell(eager), *cells])
    header = ["preset, milliseconds per outer step", "engine", "its time", "`eager`", "times as fast", "goal", "met"]
    return table(header, rows)


def seconds_table(seconds: dict[str, float]) -> str:
    """Wall-clock seconds of commands, each with its goal."""
    goals = {words: MAX_SECONDS.get(words, MAX_LIGHT_SECONDS) for words in seconds}
    rows = [
        [words, f"**{format_cell(value)}**", f"≤ {goals[words]:g}", yes_or_no(value <= goals[words])]
        for words, value in seconds.items()
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


def times_as_fast(slow: Timing | None, fast: Timing | None) -> Ratios:
    """How many times the time of `fast` is in that of `slow`, of each round; empty where one was not timed."""
    if slow is None or fast is None or not slow.wall or not fast.wall:
        return []
    return [one / other for one, other in zip(slow.wall, fast.wall, strict=True)]


def _ratios(rows: Sequence[Timing], slow: str, fast: str) -> Ratios:
    return times_as_fast(_find(rows, slow), _find(rows, fast))


def _fastest(rows: Sequence[Timing], names: Sequence[str]) -> str:
    """The one of `names` with the smallest median; the first if none was timed."""
    timed = {row.name: row.milliseconds for row in rows if row.name in names and row.milliseconds is not None}
    return min(timed, key=lambda name: timed[name], default=names[0])


def _find(rows: Sequence[Timing], name: str) -> Timing | None:
    return next((row for row in rows if row.name == name), None)


def _label(name: str) -> str:
    return f"`{name}`" if name in ENGINES else name


def _median(row: Timing | None) -> str:
    if row is None:
        return ""
    return str(row.missing) if row.milliseconds is None else format_cell(row.milliseconds)


def _cell(row: Timing | None) -> str:
    """Median and range of the time, and median of the processor time."""
    if row is None or not row.wall:
        return _median(row)
    return f"{_with_range(row.wall)}, {format_cell(statistics.median(row.processor))}"


def _with_range(values: Sequence[float]) -> str:
    return f"**{format_cell(statistics.median(values))}** ({format_cell(min(values))} to {format_cell(max(values))})"


def _ratio_cell(ratios: Ratios) -> str:
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def _goal_cells(ratios: Sequence[Ratios], goals: Sequence[float]) -> list[str]:
    """Medians with ranges, the goals, and whether all are reached; the last is empty if a ratio was not timed."""
    measured = "; ".join(_with_range(values) if values else "**not timed**" for values in ratios)
    met = all(statistics.median(values) >= goal for values, goal in zip(ratios, goals, strict=True) if values)
    goal_words = "; ".join(f"{goal:g}" for goal in dict.fromkeys(goals))
    return [measured, f"≥ {goal_words}", yes_or_no(met) if all(ratios) else ""]
