"""The benchmark in words: a table of ratios in Markdown, from what bench.json holds."""

from typing import Any

ENGINES = ("reference", "eager", "compiled", "native")
LOOP, FUNC, JAX = "loop over tasks, create_graph", "torch.func, vmap(grad)", "JAX, jit(vmap(grad))"


def benchmark_markdown(found: dict[str, Any]) -> str:
    """The tables of the README: contenders, goals, and where it was measured."""
    lines = [_where(found["machine"]), ""]
    lines += ["| milliseconds an outer step | " + " | ".join(one["title"] for one in found["workloads"]) + " |"]
    lines += ["|---|" + "---|" * len(found["workloads"])]
    names = dict.fromkeys(row["name"] for one in found["workloads"] for row in one["rows"])
    for name in names:
        cells = [_cell(_row(one["rows"], name)) for one in found["workloads"]]
        shown = f"`{name}`" if name in ENGINES else name
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    if "seeds" in found:
        lines += ["", *_ratios(found)]
    return "\n".join(lines) + "\n"


def _where(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['date']}, {machine['processor']}, {machine['cores']} cores; {versions}; one thread."


def _row(rows: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    return next((row for row in rows if row["name"] == name), None)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["milliseconds"] is None:
        return str(row["missing"])
    low, high = row["spread"]
    return f"**{row['milliseconds']:.3g}** ({low:.3g} to {high:.3g})"


def _fastest(rows: list[dict[str, Any]]) -> str:
    timed = {row["name"]: row["milliseconds"] for row in rows if row["name"] in ENGINES and row["milliseconds"]}
    return str(min(timed, key=lambda name: timed[name]))


def _ratios(found: dict[str, Any]) -> list[str]:
    """Each goal, what was measured, and whether it is met."""
    one, five = (work["rows"] for work in found["workloads"][:2])
    seeds = {(row["name"], *row["overrides"]): row["milliseconds"] for row in found["seeds"]}

    def times(rows: list[dict[str, Any]], slow: str, fast: str) -> float:
        values = [(_row(rows, name) or {}).get("milliseconds") for name in (slow, fast)]
        return values[0] / values[1] if values[0] and values[1] else float("nan")

    fastest = [_fastest(rows) for rows in (one, five)]
    rows = [
        ("`eager` against the loop over tasks, 1 step; 5 steps", [times(r, LOOP, "eager") for r in (one, five)], 15.0),
        ("`eager` against torch.func, 1; 5", [times(r, FUNC, "eager") for r in (one, five)], 4.0),
        (
            f"`{fastest[0]}` against JAX, 1; 5",
            [times(r, JAX, name) for r, name in zip((one, five), fastest, strict=True)],
            2.5,
        ),
        (
            "`native`, 8 seeds: 2 threads against 1",
            [seeds["native", "run.seeds=8"] / seeds["native", "run.seeds=8", "run.threads=2"]],
            1.8,
        ),
        (
            "`eager`, 32 seeds side by side against one after the other",
            [32 * seeds["eager", "run.seeds=1"] / seeds["eager", "run.seeds=32"]],
            1.5,
        ),
    ]
    lines = ["| times as fast | measured | goal | met |", "|---|---|---|---|"]
    for words, values, goal in rows:
        met = "yes" if all(value >= goal for value in values) else "**no**"
        lines.append(f"| {words} | **{'; '.join(f'{value:.3g}' for value in values)}** | ≥ {goal:g} | {met} |")
    lines += ["", "| seconds | measured | goal | met |", "|---|---|---|---|"]
    whole = {"train --config finn-10shot`, from start to finish": (found["training_seconds"], 15.0)}
    light = {f"{words}`": (value, 0.25) for words, value in found["commands"].items()}
    for words, (value, goal) in (whole | light).items():
        lines.append(f"| `maml {words} | **{value:.3g}** | ≤ {goal:g} | {'yes' if value <= goal else '**no**'} |")
    lines += [
        "",
        "| memory of one outer step of 1,000 tasks with 10 inner steps | MiB | milliseconds |",
        "|---|---|---|",
    ]
    for row in found["memory"]:
        name = f"`{row['name']}`{', recomputing' if 'inner.recompute_activations=true' in row['overrides'] else ''}"
        lines.append(f"| {name} | {row['memory_mib']:.0f} | {row['milliseconds']:.3g} |")
    return lines
