"""The benchmark: engines and peers on one workload, each in a process of its own, timed in turns; ratios first.

`make bench` runs this. Every contender shows its meta-gradient before it is timed. Times differ between machines and
moments; the ratios within one run are what it is for.
"""

import contextlib
import datetime
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from maml_cli.cli.exit_codes import exit_on_error
from maml_cli.config import load_config
from maml_cli.dev import other_libraries
from maml_cli.dev.bench_worker import TOLERANCE
from maml_cli.dev.benchmark_tables import ENGINES, benchmark_markdown
from maml_cli.engines import registry
from maml_cli.runs import OUTPUTS, write_atomic
from maml_cli.runtime import available_devices

# At a rate that leaves the network where it is: without clipping, thousands of steps would diverge.
LEARNED = ["inner.alpha.learned=true", "inner.alpha.per=parameter", "inner.alpha.per_step=true", "outer.lr=1e-6"]
WORKLOADS = {
    "1 inner step": ["inner.steps=1"],
    "5 inner steps": ["inner.steps=5"],
    "5 steps, alpha learned per parameter and step": ["inner.steps=5", *LEARNED],
}
GROWTH = {
    "inner steps": [("inner.steps={}", value) for value in (1, 2, 5, 10)],
    "tasks in an outer step": [("outer.tasks_per_step={}", value) for value in (25, 250, 2500)],
    "width of the layers": [("model.hidden=[{0},{0}]", value) for value in (40, 80, 160, 256)],
}
LIGHT_COMMANDS = (["--help"], ["config", "show", "finn-10shot"], ["presets"])


class Contender(NamedTuple):
    """What is timed: an engine or a peer, on finn-10shot with changes."""

    name: str
    overrides: Sequence[str]
    checked: bool = True


def measure(contenders: Sequence[Contender], *, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Milliseconds an outer step of each, the median and the spread of `rounds` that they take in turns.

    All contenders are there at the same time, and only one computes.
    """
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_process(one)) for one in contenders]
        ready = [_read_reply(process) for process in processes]
        times: list[list[float]] = [[] for _ in contenders]
        for _ in range(rounds):
            for process, found, words in zip(processes, times, ready, strict=True):
                if words is not None:
                    answer = _read_reply(process, f"{seconds}\n")
                    found += [answer["milliseconds"]] if answer else []
    return [
        {
            "name": one.name,
            "overrides": list(one.overrides),
            "milliseconds": statistics.median(found) if found else None,
            "spread": [min(found), max(found)] if found else None,
            "distance": words["distance"] if words else None,
            "memory_mib": words["memory_mib"] if words else None,
            "missing": None if found else _why_missing(one),
        }
        for one, found, words in zip(contenders, times, ready, strict=True)
    ]


def _why_missing(one: Contender) -> str:
    package = other_libraries.NEEDS.get(one.name)
    return f"{package} is not installed" if package and not importlib.util.find_spec(package) else "failed"


@contextlib.contextmanager
def _process(one: Contender) -> Iterator[subprocess.Popen[str]]:
    """The process of a contender; on one core, unless it says how many threads it takes."""
    given = json.dumps(one._asdict())
    one_thread = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    command = [sys.executable, "-W", "ignore", "-m", "maml_cli.dev.bench_worker", given]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | one_thread,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _read_reply(process: "subprocess.Popen[str]", question: str = "") -> dict[str, float] | None:
    """The next line of a contender, after `question`; None if it has ended."""
    assert process.stdin and process.stdout
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(question)
        process.stdin.flush()
    for line in process.stdout:
        if line.startswith("{"):
            found: dict[str, float] = json.loads(line)
            return found
    return None


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    versions = {"python": platform.python_version()}
    for name in ("torch", "jax", "optax", "higher", "torchopt"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor,
        "cores": os.cpu_count() or 1,
        "devices": available_devices(),
        "versions": versions,
    }


def _seconds(arguments: Sequence[str], *, times: int) -> float:
    """The least of several wall-clock times of a `maml` command."""
    found = []
    for _ in range(times):
        before = time.perf_counter()
        subprocess.run([sys.executable, "-m", "maml_cli", *arguments], check=True, capture_output=True)
        found.append(time.perf_counter() - before)
    return min(found)


def run_all(*, rounds: int, seconds: float, toy: bool, out: Path) -> dict[str, Any]:
    """Everything that is measured."""
    small = ["outer.tasks_per_step=3", "model.hidden=[8,8]"] if toy else []
    names = [*other_libraries.PEERS, *(name for name in ENGINES if not toy or name in ("reference", "eager"))]
    found: dict[str, Any] = {"schema_version": 1, "machine": machine(), "workloads": []}
    for title, overrides in list(WORKLOADS.items())[: 1 if toy else None]:
        config = load_config("finn-10shot", overrides).config
        able = [name for name in names if name in other_libraries.PEERS or not _refused(name, config)]
        able = [name for name in able if name not in other_libraries.PEERS or not config.inner.alpha.learned]
        rows = measure([Contender(name, [*overrides, *small]) for name in able], rounds=rounds, seconds=seconds)
        wrong = [row["name"] for row in rows if row["distance"] is not None and row["distance"] > TOLERANCE]
        if wrong:
            raise AssertionError(f"another meta-gradient than the reference: {', '.join(wrong)}")
        found["workloads"].append({"title": title, "rows": rows})
        typer.echo(f"measured: {title}", err=True)
    if toy:
        return found
    many = [
        Contender("native", ["run.seeds=8"]),
        Contender("native", ["run.seeds=8", "run.threads=2"]),
        Contender("eager", ["run.seeds=1"]),
        Contender("eager", ["run.seeds=32"]),
        Contender("native", ["run.seeds=1"]),
        Contender("native", ["run.seeds=32"]),
    ]
    found["seeds"] = measure(many, rounds=rounds, seconds=seconds)
    typer.echo("measured: seeds side by side", err=True)
    grown = [
        (axis, value, name)
        for axis, settings in GROWTH.items()
        for _, value in settings
        for name in ("reference", "eager", "native")
    ]
    patterns = {axis: settings[0][0] for axis, settings in GROWTH.items()}
    contenders = [Contender(name, [patterns[axis].format(value)], checked=False) for axis, value, name in grown]
    rows = [row for one in contenders for row in measure([one], rounds=1, seconds=seconds)]
    found["growth"] = [{"axis": axis, "value": value} | row for (axis, value, _), row in zip(grown, rows, strict=True)]
    typer.echo("measured: growth", err=True)
    large = ["inner.steps=10", "outer.tasks_per_step=1000"]
    kinds = [("reference", []), ("eager", []), ("eager", ["inner.recompute_activations=true"]), ("native", [])]
    found["memory"] = [
        row
        for name, more in kinds
        for row in measure([Contender(name, [*large, *more], checked=False)], rounds=1, seconds=seconds)
    ]
    found["commands"] = {" ".join(words): _seconds(words, times=5) for words in LIGHT_COMMANDS}
    training = ["train", "-c", "finn-10shot", "-s", "run.device=cpu", "-q"]
    _seconds([*training, "-s", "outer.steps=10", "-s", "run.engine=native", "--out", str(out / "bench-warm")], times=1)
    found["training_seconds"] = _seconds([*training, "--out", str(out / "bench-run")], times=1)
    return found


def _refused(name: str, config: Any) -> bool:
    import torch

    return registry.unsupported(name, config, torch.device("cpu")) is not None


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.01, help="How long each is timed, each time.")] = 0.5,
    toy: Annotated[bool, typer.Option("--toy", help="A small network and few contenders: does it run?")] = False,
    out: Annotated[Path, typer.Option(help="Where bench.json and the figure go.")] = OUTPUTS,
) -> None:
    """Time every engine and peer on finn-10shot; print a table, and write it as bench.json."""
    out.mkdir(parents=True, exist_ok=True)
    found = run_all(rounds=rounds, seconds=seconds, toy=toy, out=out)
    write_atomic(out / "bench.json", f"{json.dumps(found, indent=1)}\n".encode())
    typer.echo(benchmark_markdown(found))
    if "growth" in found:
        from maml_cli.reporting.run_figures import draw_growth

        draw_growth(found["growth"], out / "bench-growth.png")


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
