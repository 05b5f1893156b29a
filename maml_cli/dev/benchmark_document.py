"""The benchmark as data: the contents of bench.json."""

from pathlib import Path
from typing import NamedTuple

from maml_cli.dev.json_document import read_document, write_document


class Timing(NamedTuple):
    """Measurements of one contender.

    name: an engine or another library.
    overrides: of the config finn-10shot.
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
    """All contenders on the same outer steps."""

    title: str
    rows: list[Timing]


class Growth(NamedTuple):
    """The time of an outer step at one value of an axis, such as the number of inner steps."""

    axis: str
    value: int
    timing: Timing


class Machine(NamedTuple):
    """Where and with what it was measured.

    date: ISO 8601.
    processor: model name.
    cores: logical ones.
    devices: that PyTorch can use.
    versions: of Python and of the libraries that are installed.
    """

    date: str
    processor: str
    cores: int
    devices: list[str]
    versions: dict[str, str]


class Scaling(NamedTuple):
    """Measurements beyond the workloads.

    seeds: runs trained side by side, and threads.
    growth: inner steps, tasks and width.
    memory: one large outer step.
    commands: seconds of light commands, by their arguments.
    training_seconds: `maml train --config finn-10shot` from start to finish.
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
