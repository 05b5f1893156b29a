"""Progress on stderr: rates that are measured, and the total time at the end."""

import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import Iterator

import pytest

from maml_cli.training.progress import count_progress, evaluation_progress, format_seconds, progress


def _lines(calls: list[tuple[float, int]], steps: int, capsys: pytest.CaptureFixture[str], first: int = 0) -> list[str]:
    """The lines of a training whose calls end at the seconds and outer steps of `calls`, each with loss 1."""
    times = iter([0.0, *(seconds for seconds, _ in calls)])
    with progress(first_step=first, steps=steps, tasks_per_step=25, quiet=False, clock=lambda: next(times)) as on_step:
        for _, step in calls:
            on_step(step, 1.0)
    return capsys.readouterr().err.splitlines()


def test_the_time_of_the_first_call_is_not_in_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    """20 s of compilation for the first step, then 10 steps a second: 9.9 s are left at step 101 of 200."""
    assert _lines([(20.0, 1), (24.9, 50), (30.0, 101), (39.9, 200)], 200, capsys) == [
        "step 1/200: loss 1",
        "step 101/200: loss 1, 10 steps/s, 250 tasks/s, 10 s left",
        "step 200/200: loss 1, 10 steps/s, 250 tasks/s, done in 40 s",
    ]


def test_a_training_of_one_call_has_a_total_time_and_no_rate(capsys: pytest.CaptureFixture[str]) -> None:
    assert _lines([(6.0, 12)], 12, capsys) == ["step 12/12: loss 1, done in 6 s"]


def test_the_rate_of_a_resumed_training_is_that_of_its_own_steps(capsys: pytest.CaptureFixture[str]) -> None:
    """From step 1,000 on: 100 steps in the 10 s after the first call."""
    *_, last = _lines([(1.0, 1001), (11.0, 1101)], 2000, capsys, first=1000)
    assert last == "step 1,101/2,000: loss 1, 10 steps/s, 250 tasks/s, 01:30 left"


def test_the_loss_is_averaged_with_a_decay_of_0_98_per_outer_step(capsys: pytest.CaptureFixture[str]) -> None:
    """2 + (1 - 2) 0.98^50 = 1.6358."""
    times = iter([0.0, 6.0, 12.0])
    with progress(first_step=0, steps=51, tasks_per_step=1, quiet=False, clock=lambda: next(times)) as on_step:
        on_step(1, 1.0)
        on_step(51, 2.0)
    assert "step 51/51: loss 1.636," in capsys.readouterr().err


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(first_step=0, steps=1, tasks_per_step=1, quiet=True) as on_step:
        on_step(1, 1.0)
    assert capsys.readouterr().err == ""


@contextlib.contextmanager
def _terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """stderr on a terminal of 120 columns; the file descriptor from which its output is read."""
    reader, writer = pty.openpty()
    os.set_blocking(reader, False)
    with os.fdopen(writer, "w") as stream:
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        monkeypatch.setattr(sys, "stderr", stream)
        yield reader
    os.close(reader)


def _read_all(descriptor: int) -> str:
    data = b""
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(descriptor, 4096):
            data += chunk
    return data.decode()


def test_the_bar_of_a_finished_training_has_the_total_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 3.0, 3.1, 8.0])
    with _terminal(monkeypatch) as terminal:
        with progress(first_step=0, steps=50, tasks_per_step=25, quiet=False, clock=lambda: next(times)) as on_step:
            for step in (1, 2, 50):
                on_step(step, 1.0)
        drawn = _read_all(terminal).replace("\n", "\r").split("\r")
    last = [text for text in drawn if text.strip()][-1]
    assert last.startswith("100%|") and last.strip().endswith("| 50/50 loss 1, 10 steps/s, 245 tasks/s, done in 8 s")
    assert "?" not in "".join(drawn)


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (5.6, "6 s"), (59.6, "01:00"), (1008.0, "16:48")])
def test_durations_have_seconds_up_to_a_minute(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_an_evaluation_in_a_log_file_has_a_line_after_two_seconds_and_every_five(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Chunks after 1, 2.9, 3.1, 8.0 and 8.2 seconds, the first of which counts as the start."""
    times = iter([0.0, 1.0, 2.9, 3.1, 8.0, 8.2])
    with evaluation_progress(clock=lambda: next(times)) as on_tasks:
        for done in (100, 1200, 1300, 2400, 2500):
            on_tasks("K = 10, learner", done, 10_000)
    lines = ["K = 10, learner: 1,300/10,000 tasks", "K = 10, learner: 2,500/10,000 tasks"]
    assert capsys.readouterr().err.splitlines() == lines


def test_work_without_a_known_end_has_a_line_after_two_seconds_and_every_five(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = iter([0.0, 1.9, 2.0, 6.9, 7.0])
    with count_progress("checking", "checks", clock=lambda: next(times)) as on_count:
        for done in (0, 1, 69, 70):
            on_count(done)
    assert capsys.readouterr().err.splitlines() == ["checking: 1 check", "checking: 70 checks, 10 checks/s"]


def test_short_evaluations_with_outer_steps_between_them_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Two of one second each, 100 seconds apart."""
    times = iter([0.0, 1.0, 2.0, 102.0, 103.0])
    with evaluation_progress(clock=lambda: next(times)) as on_tasks:
        for done in (5, 10, 5, 10):
            on_tasks("K = 10, learner", done, 10)
    assert capsys.readouterr().err == ""
