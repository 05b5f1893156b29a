"""Commands on a hostile run: each ends in time, with an error or without, and changes no file around the run."""

from collections.abc import Sequence
from pathlib import Path

from maml_cli.dev.soak.processes import maml
from maml_cli.dev.soak.tally import Tally
from maml_cli.dev.soak.trained import SHORT, tree_digests

SECONDS = 20.0
"""Time limit of a command on a hostile file: it takes a tenth, alone on its core."""
ALLOWED = {0, 2, 3, 4, 5}
COMMANDS = (
    ["eval", "run", "--tasks", "20"],
    ["plot", "run", "--kind", "curve"],
    ["train", "--resume", "run", "-q"],
    ["train", *SHORT, "-q", "--resume", "auto", "--out", "run"],
)


def run_commands(tally: Tally, folder: Path, line: str, commands: Sequence[Sequence[str]]) -> None:
    """Run commands on `folder`/run; none may change a file around it."""
    around = tree_digests(folder.parent, without="run")
    for command in commands:
        tally.tries += 1
        outcome = maml(command, folder, seconds=SECONDS)
        tally.check_end(outcome, ALLOWED, f"{command[0]}, {line}")
    if tree_digests(folder.parent, without="run") != around:
        tally.fail("changed", f"{line}: a file outside of the run changed")
