"""The soak: `make soak` attacks the program and its files, prints a table and writes outputs/soak.json.

Each attack runs in a process of its own, two of them at a time. The exit code is 1 if any attempt failed.
"""

import json
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from maml_cli.cli.exit_codes import exit_on_error
from maml_cli.dev.benchmark import describe_machine
from maml_cli.dev.json_document import from_plain, to_plain
from maml_cli.dev.soak.attacks import ALONE, ATTACKS
from maml_cli.dev.soak.document import Soak, num_faults, soak_table, write_soak
from maml_cli.dev.soak.processes import preload, start, wait
from maml_cli.dev.soak.row import SoakRow
from maml_cli.errors import ConfigError
from maml_cli.runs import write_atomic

MAX_SECONDS = 3600.0
"""Time limit of one attack."""
MIN_FREE = 4 * 2**30
"""Bytes that the runs of the attacks may take."""
_FORKING = threading.Lock()
"""A process that is forked while another one is started would hold the pipes of that one open."""


def run_attacks(names: Sequence[str], scratch: Path, *, scale: float, jobs: int) -> dict[str, SoakRow]:
    """The rows of the attacks `names`, `jobs` at a time; those that need all cores come last, one at a time."""
    preload()
    rows = dict[str, SoakRow]()
    run = partial(run_attack, scratch=scratch, scale=scale)
    for group, workers in (([name for name in names if name not in ALONE], jobs), (sorted(ALONE & {*names}), 1)):
        with ThreadPoolExecutor(workers) as pool:
            rows |= zip(group, pool.map(run, group), strict=True)
    return {name: rows[name] for name in names}


def run_attack(name: str, *, scratch: Path, scale: float) -> SoakRow:
    """The row of an attack that runs in a process and a directory of its own; a failed process is a traceback."""
    folder = scratch / name
    folder.mkdir()
    result = scratch / f"{name}.json"
    started = time.perf_counter()

    def body() -> None:
        row = ATTACKS[name].load()(folder, scale=scale)
        write_atomic(result, json.dumps(to_plain(row)).encode())

    with _FORKING:
        child = start(body, scratch)
    outcome = wait(child, seconds=MAX_SECONDS)
    if outcome.code == 0:
        row: SoakRow = from_plain(json.loads(result.read_text(encoding="utf-8")), SoakRow)
    else:
        seconds = round(time.perf_counter() - started, 1)
        row = SoakRow(name, 0, 0, 1, 0, seconds, [f"the attack itself: {outcome.err[-2000:]}"])
    typer.echo(f"{name}: {row.tries:,} tries, {num_faults(row)} faults, {row.seconds:.0f} s", err=True)
    return row


def _memory_folder() -> Path | None:
    """The file system in memory, where fsync, a third of the time of a resume, costs nothing; None if it is small, or
    if programs, which the sanitizers compile, cannot be executed there."""
    folder = Path("/dev/shm")
    if not os.access(folder, os.W_OK):
        return None
    state = os.statvfs(folder)
    return folder if state.f_bavail * state.f_frsize > MIN_FREE and not state.f_flag & os.ST_NOEXEC else None


def main(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Attacks; by default all.")] = None,
    scale: Annotated[float, typer.Option(min=1e-4, help="Fraction of the attempts of the full form.")] = 1.0,
    jobs: Annotated[int, typer.Option(min=1, help="Attacks that run at the same time.")] = 2,
    out: Annotated[Path, typer.Option(help="Directory of soak.json.")] = Path("outputs"),
) -> None:
    """Attack the program and its files; print the table, and write soak.json."""
    chosen = list(dict.fromkeys(names or ATTACKS))
    if unknown := [name for name in chosen if name not in ATTACKS]:
        raise ConfigError(f"{', '.join(unknown)}: no such attack; there are {', '.join(ATTACKS)}")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="maml-soak-", dir=_memory_folder()) as scratch:
        Path(scratch).chmod(0o755)  # some attacks run as a user who may only read
        rows = run_attacks(chosen, Path(scratch), scale=scale, jobs=jobs)
    out.mkdir(parents=True, exist_ok=True)
    write_soak(out / "soak.json", Soak(describe_machine(), scale, round(time.perf_counter() - started, 1), rows))
    typer.echo(soak_table(rows.values()))
    for name, row in rows.items():
        for line in row.failures:
            typer.echo(f"{name}: {line}")
    if any(num_faults(row) for row in rows.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
