"""The soak as data, the contents of soak.json, and as a table."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from maml_cli.dev.benchmark_document import Machine
from maml_cli.dev.json_document import read_document, write_document
from maml_cli.dev.markdown import table
from maml_cli.dev.soak.row import SoakRow

SOAK = Path("outputs") / "soak.json"
"""The document in a checkout."""


class Soak(NamedTuple):
    """The document soak.json.

    machine: the machine and the software, and the day.
    scale: 1 for the full form; attacks of a short form have that fraction of its attempts.
    seconds: duration of all attacks.
    rows: the results by name of the attack.
    """

    machine: Machine
    scale: float
    seconds: float
    rows: dict[str, SoakRow]


def read_soak(file: Path) -> Soak:
    """The soak in `file`; raises FileError if it is damaged."""
    return read_document(file, Soak)


def write_soak(file: Path, soak: Soak) -> None:
    """Write soak.json."""
    write_document(file, soak)


def soak_table(rows: Iterable[SoakRow]) -> str:
    """The Markdown table of all attacks."""
    header = ["attack", "tries", "lost", "tracebacks", "changed values", "seconds"]
    cells = [
        [row.attack, f"{row.tries:,}", row.losses, row.tracebacks, row.changed, f"{row.seconds:.0f}"] for row in rows
    ]
    return table(header, cells)


def num_faults(row: SoakRow) -> int:
    """Failed attempts of all kinds."""
    return row.losses + row.tracebacks + row.changed
