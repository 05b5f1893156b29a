"""Messages on a terminal and in pipes: where their lines are broken, and commands in them that a shell takes."""

import contextlib
import fcntl
import io
import os
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from maml_cli.messages import wrapped
from tests.conftest import ROOT, TINY_RUN, Cli, shell

COLUMNS = 60


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    monkeypatch.delenv("COLUMNS", raising=False)
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    with open(theirs, "w") as stream:
        yield stream
    os.close(ours)


def _on_a_terminal(*arguments: str, folder: Path) -> list[str]:
    """The lines of stdout and stderr of `maml` on a terminal of COLUMNS columns."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {
        "PYTHONPATH": str(ROOT),
        "TERM": "dumb",
    }
    command = [sys.executable, "-m", "maml_cli", *arguments]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=folder, env=environment):
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(ours, 65_536):
                shown += data
    os.close(ours)
    return shown.decode().replace("\r\n", "\n").splitlines()


def test_a_line_is_broken_at_words_and_indented_below_its_label(terminal: TextIO) -> None:
    line = "  order    second order: the meta-gradient is differentiated through the inner steps"
    assert wrapped(line, terminal) == (
        "  order    second order: the meta-gradient is differentiated\n           through the inner steps"
    )
    assert wrapped(line, io.StringIO()) == line
    assert wrapped("words " * 10, terminal) == "words " * 10  # as wide as the terminal


def test_paths_and_commands_to_copy_stay_on_one_line(terminal: TextIO) -> None:
    path = "/a/very/long/path/of/a/run-directory/with-hyphens/and-parts/beyond-sixty-columns"
    assert wrapped(f"{path}: no such run or checkpoint", terminal) == f"{path}:\n  no such run or checkpoint"
    command = "maml train --resume 'outputs/a run with spaces in its name'"
    assert wrapped(f"stopped by SIGINT; checkpoint saved. Resume with: {command}", terminal) == (
        f"stopped by SIGINT; checkpoint saved. Resume with:\n  {command}"
    )


def test_a_terminal_gets_the_words_of_a_pipe_in_lines_that_fit(tmp_path: Path) -> None:
    arguments = ("train", "-c", "best-5shot", "--dry-run")
    lines = _on_a_terminal(*arguments, folder=tmp_path)
    piped = shell(f"maml {' '.join(arguments)}", tmp_path).stdout
    assert max(map(len, lines)) <= COLUMNS < max(map(len, piped.splitlines()))
    assert " ".join(lines).split() == piped.split()
    error = _on_a_terminal("train", "-c", "smoke", "-s", "model.activation=reluu", folder=tmp_path)
    assert len(error) > 1 and max(map(len, error)) <= COLUMNS and all(line.startswith("  ") for line in error[1:])


def test_paths_in_commands_of_messages_are_quoted_for_the_shell(cli: Cli) -> None:
    run = "outputs/a b $HOME"
    result = cli("train", "-c", "smoke", *TINY_RUN, "--out", run)
    command = result.err.splitlines()[-1].removeprefix("next: ")
    assert shlex.split(command) == ["maml", "eval", "--checkpoint", run]
    file = cli("init", "my config.yaml").err.removeprefix("next: ")
    assert shlex.split(file) == ["maml", "train", "--config", "my config.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("diff best-5shot", "OTHER: missing; see maml diff --help"),
        ("sweep show --csv", "--csv: requires an argument; see maml sweep show --help"),
        ("plot --kind", "--kind: requires an argument; see maml plot --help"),
        ("presets show zzzz", "zzzz: no such preset; maml presets lists them"),
        ("eval smkoe", "smkoe: no such run or checkpoint; did you mean outputs/smoke?"),
        ("train --resume outputs/smok", "outputs/smok: no such run or checkpoint; did you mean outputs/smoke?"),
        ("eval best-5shto", "best-5shto: no such run or checkpoint; did you mean best-5shot?"),
        ("runs output", "output: no such directory; did you mean outputs?"),
        ("clean smoek --keep-last 1", "smoek: no such directory; did you mean outputs/smoke?"),
        ("eval nothing-alike", "nothing-alike: no such run or checkpoint"),
        ("train --out a --out b", "--out: given twice; give it once"),
        ("export metrics x --out a --out=b", "--out: given twice; give it once"),
        ("eval --checkpoint a --checkpoint b", "--checkpoint: given twice; give it once"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_was_meant(arguments: str, message: str, cli: Cli) -> None:
    Path("outputs/smoke").mkdir(parents=True)
    assert cli(*arguments.split()).err == f"{message}\n"


def test_options_that_name_no_path_may_be_repeated(cli: Cli) -> None:
    words = ("-s", "outer.steps=3", "-s", "inner.steps=2", "-q", "-q", "--device", "auto", "--device", "cpu")
    result = cli("train", "-c", "smoke", "--dry-run", *words)
    assert result.code == 0 and "2 inner steps" in result.out and "device   cpu" in result.out


def test_commands_about_a_diverged_run_say_so(cli: Cli) -> None:
    cli("train", "-c", "smoke", *TINY_RUN, "-q", "-s", "inner.alpha.init=1e6", "-s", "inner.steps=5")
    for command in (("eval",), ("plot", "--kind", "fit")):
        result = cli(*command, "outputs/smoke", "--tasks", "3")
        note = "outputs/smoke: diverged at outer step 1; this is its last good checkpoint, of step 0"
        assert result.code == 0 and result.err.splitlines()[0] == note
