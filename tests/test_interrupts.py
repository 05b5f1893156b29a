"""Ctrl-C in commands other than trainings: one line on stderr, exit code 130, within a second, and no file left."""

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from maml_cli.cli import app
from maml_cli.errors import InterruptedRun
from maml_cli.interrupts import exit_on_interrupt
from tests.conftest import ROOT, Cli

LINE = "maml eval: stopped by Ctrl-C\n"
# A process that a shell started in the background ignores SIGINT, and its children do.
START = """import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from maml_cli.interrupts import exit_on_interrupt
def ctrl_c(): signal.raise_signal(signal.SIGINT)
"""
BLOCK = "with exit_on_interrupt(['eval', 'latest'], is_last=True):\n"


def _command(folder: Path, script: str, redirection: str = "") -> list[str]:
    (folder / "script.py").write_text(script)
    return ["bash", "-c", f"exec {sys.executable} script.py {redirection}"]


def _run(folder: Path, script: str, redirection: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        _command(folder, script, redirection),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "body",
    [
        "ctrl_c()",
        "try: ctrl_c()\n    except KeyboardInterrupt: raise ValueError from None",
        "try: ctrl_c()\n    except KeyboardInterrupt: sys.exit(0)",
        "ctrl_c(); ctrl_c()",
        "try: ctrl_c()\n    finally: ctrl_c()",
    ],
)
def test_ctrl_c_prints_one_line_and_ends_with_130_whatever_the_code_does(body: str, tmp_path: Path) -> None:
    done = _run(tmp_path, f"{START}{BLOCK}    {body}\n    print('not reached')\n")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", LINE)


@pytest.mark.parametrize(
    "after",
    [
        "time.sleep(60)",  # the watchdog ends the process
        "subprocess.Popen(['sleep', '60']); time.sleep(0.4); sys.exit(0)",  # both do: a child takes 0.2 s to end
    ],
)
def test_code_that_does_not_return_is_ended_within_a_second_with_the_same_line(after: str, tmp_path: Path) -> None:
    body = "    try: print('ready', flush=True); time.sleep(60)\n    except KeyboardInterrupt: pass\n"
    body += f"    {after}\n"
    process = subprocess.Popen(
        _command(tmp_path, f"{START}{BLOCK}{body}"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, LINE)
    assert time.monotonic() - started < 5  # 0.6 s on a machine with nothing else to do


def test_a_closed_or_full_stderr_changes_nothing_but_the_line(tmp_path: Path) -> None:
    for redirection in ("2>&-", "2>/dev/full"):
        done = _run(tmp_path, f"{START}{BLOCK}    ctrl_c()\n", redirection)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_reader_of_stderr_that_stopped_reading_does_not_keep_the_process(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, b"x" * 65536):
            pass
    os.set_blocking(writer, True)
    command = _command(tmp_path, f"{START}{BLOCK}    ctrl_c()\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, cwd=tmp_path, env=environment, stderr=writer, timeout=30).returncode == 130
    os.close(reader)
    os.close(writer)


def test_ctrl_c_before_the_command_line_runs_has_the_line_of_the_command(tmp_path: Path) -> None:
    """The program is recognised by its name, and its arguments follow."""
    script = f"{START}sys.argv = ['/usr/bin/maml', 'export', 'params']\nimport maml_cli.cli\nctrl_c()\nprint('no')\n"
    done = _run(tmp_path, script)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "maml export: stopped by Ctrl-C\n")
    done = _run(tmp_path, script.replace("/usr/bin/maml", "other"))
    assert done.returncode != 130 and "KeyboardInterrupt" in done.stderr


@pytest.mark.parametrize(("terminal", "start"), [("xterm", b"\r\x1b[K"), ("dumb", b"\r\n")])
@pytest.mark.parametrize("is_open", [False, True])
def test_on_a_terminal_the_line_has_a_line_of_its_own(
    terminal: str, start: bytes, is_open: bool, tmp_path: Path
) -> None:
    """After a bar that KeyboardInterrupt closes and clears, and after one that stays open, as `^C` does."""
    bar = f"from tqdm import tqdm\n{BLOCK}    bar = tqdm(initial=4, total=9, leave=False)\n"
    body = "    ctrl_c()\n" if is_open else "    with bar: ctrl_c()\n"
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        _command(tmp_path, START + bar + body),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": terminal},
        stderr=follower,
    )
    os.close(follower)
    output = b""
    try:
        while data := os.read(leader, 1000):
            output += data
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    assert process.wait(timeout=60) == 130
    end = start + LINE.replace("\n", "\r\n").encode()
    before = output.removesuffix(end)
    assert b"4/9" in before and before != output
    assert is_open or before.endswith(b" \r")  # tqdm has cleared its bar


def test_an_end_without_clean_up_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    body = "from maml_cli.runs.files import replacing\nfrom pathlib import Path\nimport os\n"
    body += f"from maml_cli.interrupts import exit_at_once\n{BLOCK}    with replacing(Path('table.csv')) as file:\n"
    body += "        os.write(file, b'new')\n        exit_at_once(130)\n"
    (tmp_path / "table.csv").write_text("old")
    assert _run(tmp_path, START + body).returncode == 130
    assert sorted(os.listdir(tmp_path)) == ["script.py", "table.csv"] and (tmp_path / "table.csv").read_text() == "old"


@pytest.fixture
def _handled() -> Iterator[None]:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("_handled")
def test_a_program_that_calls_the_command_line_gets_the_exit_code_and_keeps_its_handler(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "app", lambda arguments, **options: signal.raise_signal(signal.SIGINT))
    result = cli("runs", "--json")
    assert (result.code, result.out, result.err) == (130, "", "maml runs: stopped by Ctrl-C\n")
    assert cli("--version").err == "maml: stopped by Ctrl-C\n"
    assert cli("a\x1b[31m\n").err == "maml a\\x1b[31m\\n: stopped by Ctrl-C\n"


@pytest.mark.usefixtures("_handled")
def test_an_interrupted_run_says_itself_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    for lines in (["outputs/x: stopped; continue"], []):
        with pytest.raises(SystemExit, match="130"), exit_on_interrupt(["sweep"], is_last=False):
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise InterruptedRun(*lines) from None
        assert capsys.readouterr().err == "".join(f"{line}\n" for line in lines)
