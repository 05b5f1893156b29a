"""The benchmark as data: the contents of bench.json."""

import statistics
from pathlib import Path
from typing import NamedTuple

from maml_cli.dev.json_document import read_document, write_document


class Timing(NamedTuple):
    """Measurements of one contender.

    name: an engine, another library, or the multiply-adds alone.
    config: the preset that it trains.
    overrides: changes to that config.
    wall: milliseconds of time per outer step, of each round; empty if it could not be timed.
    processor: milliseconds of processor time per outer step, of all its threads, of each round.
    distance: relative distance of its meta-gradient from the reference engine in float64; None if not compared.
    memory_mib: growth of the process's peak memory by its first outer step.
    missing: the reason why it could not be timed.
    """

    name: str
    config: str
    overrides: tuple[str, ...]
    wall: tuple[float, ...]
    processor: tuple[float, ...]
    distance: float | None
    memory_mib: float | None
    missing: str | None

    @property
    def milliseconds(self) -> float | None:
        """The median over rounds of `wall`; None if it could not be timed."""
        return statistics.median(self.wall) if self.wall else None


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

    presets: for each preset, the timings of the engine that a user gets and of eager.
    seeds: timings of several runs side by side, with one thread and with two.
    growth: timings along the axes inner steps, tasks and width.
    memory: timings of one large outer step, for its memory.
    seconds: wall-clock seconds of commands, by what is measured.
    """

    presets: list[Workload]
    seeds: list[Timing]
    growth: list[Growth]
    memory: list[Timing]
    seconds: dict[str, float]


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
