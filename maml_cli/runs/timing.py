"""The lines of timing.jsonl: the engine of each process, times and rates, and a divergence.

{"step": 0, "engine": "native", "device": "cpu", "maml": "0.1.0", "torch": "2.13.0+cpu"}    a process starts or resumes
{"step": 100, "seconds": 1.5, "outer_steps_per_second": 66.7}     since its start
{"step": 57, "diverged": "query_loss"}                            all runs diverged in outer step 57: the training ended

Resuming removes the lines after the checkpoint, and so a divergence.
"""

import re
from pathlib import Path
from typing import NamedTuple

from maml_cli import __version__
from maml_cli.documents import to_plain, trainings
from maml_cli.reading import read_if_exists
from maml_cli.runs.files import TRUNCATED_LOG_BYTES, append_line, parse_record

TIMING = "timing.jsonl"


class Timing(NamedTuple):
    """The last process that trained, by timing.jsonl.

    engine: its engine; empty if it is not recorded.
    versions: those of maml and PyTorch in words; empty if they are not recorded.
    diverged_step: the outer step in which all runs diverged; None if they did not.
    """

    engine: str = ""
    versions: str = ""
    diverged_step: int | None = None


def write_start(run: Path, step: int, *, engine: str, device: str, torch_version: str) -> None:
    """Append to timing.jsonl the engine, device and versions of a process that trains on from outer step `step`."""
    line = trainings.StartLine(step=step, engine=engine, device=device, maml=__version__, torch=torch_version)
    append_line(run / TIMING, to_plain(line))


def write_timing(run: Path, step: int, *, seconds: float, rate: float) -> None:
    """Append to timing.jsonl: the seconds that this process has trained, and its outer steps per second."""
    line = trainings.RateLine(step=step, seconds=seconds, outer_steps_per_second=rate)
    append_line(run / TIMING, to_plain(line))


def write_divergence(run: Path, step: int, cause: str) -> None:
    """Append to timing.jsonl that all runs diverged in outer step `step`, by the value `cause` that is not finite."""
    append_line(run / TIMING, to_plain(trainings.DivergenceLine(step=step, diverged=cause)))


def read_timing(run: Path) -> Timing:
    """The last engine and the divergence in timing.jsonl; raises FileError if it is not a regular file or too large."""
    data = read_if_exists(run / TIMING, limit=TRUNCATED_LOG_BYTES) or b""
    lines = data.split(b"\n")
    engines = re.findall(rb'"engine": "(\w+)"', data)
    last = next((record for line in lines[-1:-3:-1] if (record := parse_record(line))), {})
    versions = re.findall(rb'"maml": "([\w.+-]+)", "torch": "([\w.+-]+)"', data)
    return Timing(
        engines[-1].decode() if engines else "",
        "maml {}, PyTorch {}".format(*(version.decode() for version in versions[-1])) if versions else "",
        last["step"] if "diverged" in last else None,
    )
