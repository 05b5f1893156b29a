"""The results in words: tables in Markdown, from what results.json holds."""

import math
from typing import Any

MAX_SEED_RATIO = 1.2  # no seed may be worse than a goal by more


def results_head(results: dict[str, Any]) -> str:
    """What RESULTS.md begins with: the protocol."""
    counts = ", ".join(f"{count:,}" for count in sorted({entry["num_tasks"] for entry in results["entries"]}))
    return f"""# Results

Made by `make results`; `results.json` has the same numbers in full, each with its median and its worst task.

Mean squared error on the 100-point grid over {counts} test tasks (seed 0) that training never sees, noise-free, K = the
trained K but for G1; the final checkpoint, never the best one. In the second table ± is 1.96 s / √n over the tasks, of
seed 0. Training times are those of one thread, by the engine named; other trainings may have run beside it.
"""


def results_markdown(results: dict[str, Any]) -> str:
    """The tables of RESULTS.md, which the README shows as well."""
    return f"{_goal_table(results)}\n{_method_table(results)}"


def _goal_table(results: dict[str, Any]) -> str:
    lines = [
        "| | preset | K | after step | MSE, mean of seeds | seeds | goal | met | training | published |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in results["entries"]:
        for goal in entry["goals"]:
            each = [_at(run, goal["shots"], goal["step"])["mean"] for run in entry["runs"]]
            mean = sum(each) / len(each)
            met = "yes" if mean <= goal["bound"] and max(each) <= MAX_SEED_RATIO * goal["bound"] else "**no**"
            cells = [entry["label"], f"`{entry['preset']}`", goal["shots"], goal["step"], f"**{_short(mean)}**"]
            cells += [", ".join(map(_short, each)), f"≤ {goal['bound']:g}", met, _minutes(entry), goal["published"]]
            lines.append(f"| {' | '.join(map(str, cells))} |")
        if entry["label"] == "G3":
            lines.append(_twice_the_steps(entry))
    return "\n".join(lines) + "\n"


def _twice_the_steps(entry: dict[str, Any]) -> str:
    """G5: after twice the trained steps no worse than 1.5 times the error, and no task above 100."""
    (goal,) = entry["goals"]
    shots, step = goal["shots"], goal["step"]
    pairs = [(_at(run, shots, step), _at(run, shots, 2 * step)) for run in entry["runs"]]
    means, worst = [twice["mean"] for _, twice in pairs], max(twice["max"] for _, twice in pairs)
    met = worst <= 100 and all(twice["mean"] <= 1.5 * once["mean"] for once, twice in pairs)
    each = f"{', '.join(map(_short, means))}; worst task {_short(worst)}"
    cells = ["G5", f"`{entry['preset']}`", shots, 2 * step, f"**{_short(sum(means) / len(means))}**", each]
    cells += [
        f"1.5 times step {step} (by `after_last_step: {entry['after_last_step']}`), no task above 100",
        "yes" if met else "**no**",
        "",
        "",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _method_table(results: dict[str, Any]) -> str:
    lines = [
        "| method | preset | MSE after step, K = 5 | K = 10 | outer steps | training | published, K = 5; 10 |",
        "|---|---|---|---|---|---|---|",
    ]
    methods: dict[str, dict[int, dict[str, Any]]] = {}
    for entry in results["entries"]:
        if entry["label"] in ("", "G1") and entry["name"] != "quickstart":
            methods.setdefault(entry["title"], {})[entry["runs"][0]["results"][-1]["shots"]] = entry
    for title, by_shots in methods.items():
        any_entry = by_shots[max(by_shots)]
        cells = [_cell(by_shots[shots], shots) if shots in by_shots else "" for shots in (5, 10)]
        published = [by_shots[shots]["published"] if shots in by_shots else "" for shots in (5, 10)]
        beside = "; ".join(words or "-" for words in published) if any(published) else ""
        of, length = any_entry["runs"][0]["outer_steps"], _minutes(any_entry)
        lines.append(f"| {title} | `{any_entry['preset']}` | {' | '.join(cells)} | {of:,} | {length} | {beside} |")
    return "\n".join(lines) + "\n"


def _cell(entry: dict[str, Any], shots: int) -> str:
    """`1: 0.366 ± 0.008, 10: 0.171 ± 0.118`, of the first seed."""
    run, parts = entry["runs"][0], []
    for step in entry["report_steps"]:
        found = _at(run, shots, step)
        if math.isfinite(found["mean"]):
            parts.append(f"{step}: {_short(found['mean'])} ± {_short(found['ci95'])}")
        else:
            parts.append(f"{step}: overflow (median {_short(found['median'])})")
    return ", ".join(parts)


def _at(run: dict[str, Any], shots: int, step: int) -> dict[str, float]:
    """The statistics of one run."""
    (result,) = [result for result in run["results"] if result["shots"] == shots]
    return {key: or_inf(value) for key, value in result["steps"][step].items()}


def or_inf(value: float | None) -> float:
    """What is null in JSON overflowed."""
    return math.inf if value is None else value


def _short(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "overflow"


def _minutes(entry: dict[str, Any]) -> str:
    engines = "/".join(dict.fromkeys(run.get("engine", "reference") for run in entry["runs"]))
    return f"{sum(run['seconds'] for run in entry['runs']) / len(entry['runs']) / 60:.1f} min, {engines}"
