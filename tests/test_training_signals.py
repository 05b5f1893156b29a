"""Ctrl-C, SIGTERM and closed pipes: a training saves before it stops, and needs no reader."""

import signal
from pathlib import Path

import pytest

from maml_cli.training import session
from maml_cli.training.signals import catch_stop
from tests.conftest import Cli, shell


def test_a_second_signal_interrupts_only_after_the_time_to_save(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with catch_stop() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop() and stop.exit_code == 143
    monkeypatch.setattr("maml_cli.training.signals.SECONDS_TO_SAVE", 0.0)
    with pytest.raises(KeyboardInterrupt), catch_stop():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interruption_before_the_save_names_the_command_to_resume(
    cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient(*args: object, **kwargs: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "train", impatient)
    result = cli("train", "--resume", trained, "-q")
    assert result.code == 143
    advice = f"resume its newest checkpoint with: maml train --resume {trained}"
    assert result.err == f"{trained}: stopped before it could save; {advice}\n"


def test_closed_stderr_does_not_stop_training(cli: Cli, trained: str, tmp_path: Path) -> None:
    options = "-c smoke -s outer.steps=12 -s run.eval_tasks=4"
    for redirection in "2>&-", "2>/dev/full":
        done = shell(f"maml train {options} {redirection}", tmp_path)
        assert done.returncode == 0 and done.stdout.startswith("outputs/smoke-") and done.stdout.count("\n") == 1
    done = shell(f"maml eval --checkpoint {trained} | head -1", tmp_path)
    assert done.returncode in (0, 141) and "Traceback" not in done.stderr
    assert (tmp_path / trained / "eval.json").exists()
