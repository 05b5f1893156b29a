"""Hostile run directories: a file is replaced by a link, a FIFO, a device, deep JSON and other things."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

from maml_cli.dev.soak.commands import COMMANDS, run_commands
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally, scaled
from maml_cli.dev.soak.trained import SHORT, fresh_copy, remove, train_undisturbed

ATTEMPTS = 200


def attack(scratch: Path, *, scale: float) -> SoakRow:
    """Run directories in which a file is replaced by another thing."""
    tally, choices = Tally("200 hostile run directories"), random.Random(0)
    run, _ = train_undisturbed(scratch, SHORT)
    other, _ = train_undisturbed(scratch / "other", [*SHORT, "--set=run.seed=1", "--set=model.hidden=[7]"])
    names = [str(file.relative_to(run)) for file in sorted(run.rglob("*")) if file.name != ".lock"]
    names += ["eval.json", "plots", ".lock"]
    for number in range(scaled(ATTEMPTS, scale)):
        folder = scratch / "hostile"
        folder.mkdir()
        hostile, outside = fresh_copy(run, folder / "run"), scratch / "outside"
        outside.write_text("precious\n")
        name, kind = choices.choice(names), choices.choice(sorted(REPLACEMENTS))
        target = hostile / name
        if target.is_dir():
            remove(target)
        target.unlink(missing_ok=True)
        REPLACEMENTS[kind](target, outside, other / name)
        commands = COMMANDS if scale >= 1 else [COMMANDS[number % len(COMMANDS)]]
        run_commands(tally, folder, f"{name} replaced by {kind}", commands)
        if outside.read_text() != "precious\n":
            tally.fail("changed", f"{name} replaced by {kind}: a file outside was written")
        remove(folder)
    return tally.row()


def _write_other(target: Path, outside: Path, other: Path) -> None:
    if other.is_file():
        target.write_bytes(other.read_bytes())


def _write_sparse(target: Path, outside: Path, other: Path) -> None:
    with target.open("wb") as stream:
        stream.truncate(10**11)


REPLACEMENTS: dict[str, Callable[[Path, Path, Path], object]] = {
    "nothing": lambda target, outside, other: None,
    "an empty file": lambda target, outside, other: target.touch(),
    "random bytes": lambda target, outside, other: target.write_bytes(random.Random(0).randbytes(3000)),
    "deep JSON": lambda target, outside, other: target.write_text("[" * 100_000),
    "a large number": lambda target, outside, other: target.write_text(
        json.dumps({"step": 1}).replace("1", "9" * 9999)
    ),
    "null": lambda target, outside, other: target.write_text("null\n"),
    "lines of other kinds": lambda target, outside, other: target.write_text(
        '{"step": 3}\n{"step": -1, "loss": "x"}\n'
    ),
    "a link to a file outside": lambda target, outside, other: target.symlink_to(outside),
    "a link to itself": lambda target, outside, other: target.symlink_to(target.name),
    "a link to nothing": lambda target, outside, other: target.symlink_to(outside.with_name("absent")),
    "a FIFO": lambda target, outside, other: os.mkfifo(target),
    "a directory": lambda target, outside, other: target.mkdir(),
    "the file of another run": _write_other,
    "a sparse file of 100 GB": _write_sparse,
    "a device": lambda target, outside, other: target.symlink_to("/dev/zero"),
}
