"""The benchmark as data: the contents of bench.json."""

from pathlib import Path
from typing import NamedTuple

from maml_cli.dev.json_document import read_document, write_document


class Timing(NamedTuple):
    """Measurements of one contender.

    name: an engine or another library.
    overrides: changes to the config finn-10shot.
    milliseconds: per outer step, the median over rounds; None if it could not be timed.
    spread: smallest and largest of the rounds, in milliseconds.
    distance: relative distance of its meta-gradient from the reference engine in float64; None if not compared.
    memory_mib: growth of the process's peak memory by its first outer step.
    missing: the reason why it could not be timed.
    """

    name: str
    overrides: tuple[str, ...]
    milliseconds: float | None
    spread: tuple[float, float] | None
    distance: float | None
    memory_mib: float | None
    missing: str | None


class Workload(NamedTuple):
    """The timings of all contenders on the same outer steps."""

    title: str
    rows: list[Timing]


class Growth(NamedTuple):
    """The time of an outer step at one value of an axis, such as the number of inner steps."""

    axis: str
    value: int
    timing: Timing


class Machine(NamedTuple):
    """The machine and the software of a benchmark.

    date: day of the benchmark, ISO 8601.
    processor: its model name.
    cores: number of logical cores.
    devices: devices that PyTorch can use.
    versions: versions of Python and of the installed libraries, by name.
    """

    date: str
    processor: str
    cores: int
    devices: list[str]
    versions: dict[str, str]


class Scaling(NamedTuple):
    """Measurements beyond the workloads.

    seeds: timings of several runs side by side, with one thread and with two.
    growth: timings along the axes inner steps, tasks and width.
    memory: timings of one large outer step, for its memory.
    commands: seconds of light commands, by their arguments.
    training_seconds: seconds of `maml train --config finn-10shot` from start to end.
    """

    seeds: list[Timing]
    growth: list[Growth]
    memory: list[Timing]
    commands: dict[str, float]
    training_seconds: float


class Benchmark(NamedTuple):
    """The document bench.json; a smoke benchmark has no scaling."""

    machine: Machine
    workloads: list[Workload]
    scaling: Scaling | None


def read_benchmark(file: Path) -> Benchmark:
    """The benchmark in `file`; raises FileError if it is damaged."""
    return read_document(file, Benchmark)


def write_benchmark(file: Path, benchmark: Benchmark) -> None:
    """Write bench.json."""
    write_document(file, benchmark)
