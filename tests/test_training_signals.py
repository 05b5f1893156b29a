"""Ctrl-C, SIGTERM and closed pipes: a training saves before it stops, and needs no reader."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from maml_cli.config import Config
from maml_cli.engines import make_engine
from maml_cli.experiment import build_experiment
from maml_cli.interrupts import end_descendants
from maml_cli.runs import create_run, open_checkpoint
from maml_cli.training import Hooks, RunGroup, init_state, restore_state, session, train
from maml_cli.training.signals import SIGNALS, catch_stop
from tests.conftest import ROOT, Cli, shell

CONFIG = Config.model_validate(
    {
        "model": {"hidden": [3]},
        "outer": {"steps": 4},
        "run": {"engine": "reference", "device": "cpu", "log_every": 2, "eval_every": 2, "eval_tasks": 250},
    }
)


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
    options = "-c smoke -s outer.steps=12 -s run.eval_tasks=4 -s run.engine=eager"
    for redirection in "2>&-", "2>/dev/full":
        done = shell(f"maml train {options} {redirection}", tmp_path)
        assert done.returncode == 0 and done.stdout.startswith("outputs/smoke-") and done.stdout.count("\n") == 1
    done = shell(f"maml eval --checkpoint {trained} | head -1", tmp_path)
    assert done.returncode in (0, 141) and "Traceback" not in done.stderr
    assert (tmp_path / trained / "eval.json").exists()


def _train(run: Path, on_tasks: Callable[[int], bool]) -> bool:
    """Train CONFIG in `run`, new or resumed, and stop where `on_tasks(tasks done)`; whether it was interrupted."""
    experiment = build_experiment(CONFIG)
    if (run / "checkpoints").exists() and any((run / "checkpoints").glob("*.pt")):
        state = restore_state(CONFIG, experiment, open_checkpoint(run).contents)
    else:
        create_run(run, name="x", config=CONFIG)
        state = init_state(CONFIG, experiment)
    stopped = [False]

    def record(predictor: str, done: int, total: int) -> None:
        stopped[0] = stopped[0] or on_tasks(done)

    hooks = Hooks(on_tasks=record, interrupted=lambda: stopped[0])
    engine = make_engine("reference", CONFIG, experiment)
    return train(CONFIG, [RunGroup(CONFIG, experiment, state, engine)], run, hooks=hooks).interrupted


@pytest.mark.parametrize("evaluation", [0, 1, 2])
def test_a_stop_within_an_evaluation_saves_and_the_resumed_run_has_the_same_metrics(
    evaluation: int, tmp_path: Path
) -> None:
    """Evaluations at outer steps 0, 2 and 4 in chunks of 100 tasks: each is stopped after its second chunk, the last
    one after the last outer step."""
    assert not _train(tmp_path / "uninterrupted", lambda done: False)
    run, seen = tmp_path / "stopped", list[int]()

    def stop(done: int) -> bool:
        seen.append(done)
        return seen.count(200) == evaluation + 1

    assert _train(run, stop) and seen[-1] == 200
    assert len((run / "metrics.jsonl").read_text().splitlines() if evaluation else []) == 2 * evaluation
    assert not _train(run, lambda done: False)
    assert (run / "metrics.jsonl").read_bytes() == (tmp_path / "uninterrupted" / "metrics.jsonl").read_bytes()


def test_a_hangup_saves_with_129_and_is_ignored_after_nohup() -> None:
    with catch_stop() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert stop.exit_code == 129
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with catch_stop() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_a_signal_before_training_is_answered_at_once() -> None:
    for number in SIGNALS:
        with pytest.raises(KeyboardInterrupt), catch_stop() as stop:
            stop.can_save = False
            signal.raise_signal(number)


def test_a_call_that_does_not_answer_a_signal_is_saved_by_the_watchdog(tmp_path: Path) -> None:
    """The main thread sleeps in C for a minute, with the signal blocked in Python: the process ends all the same."""
    script = (
        "import ctypes, signal, sys, threading\n"
        "from maml_cli.training.signals import catch_stop\n"
        "sleep = ctypes.CDLL(None).sleep\n"
        "def rescue(): open('saved', 'w').write('yes')\n"
        "with catch_stop() as stop, stop.abandonable(rescue, True):\n"
        "    print('ready', flush=True)\n"
        "    [sleep(20) for _ in range(3)]\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    started = time.monotonic()
    process.terminate()
    assert process.wait(timeout=30) == 143 and time.monotonic() - started < 15
    assert (tmp_path / "saved").read_text() == "yes"
    process.stdout.close()


@pytest.mark.parametrize("within_import", [True, False])
def test_an_interrupt_within_an_import_ends_the_process_without_an_exception(
    within_import: bool, tmp_path: Path
) -> None:
    """C++ that is importing aborts at an exception; outside of imports, KeyboardInterrupt lets the program clean up."""
    interrupting = "import signal\ntry: signal.raise_signal(signal.SIGINT)\nexcept BaseException: print('raised')\n"
    (tmp_path / "interrupting.py").write_text(interrupting)
    code = "    import interrupting\n" if within_import else f"    exec({interrupting!r})\n"
    # A process that a shell started in the background ignores SIGINT, and its children do.
    script = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "from maml_cli.interrupts import exit_on_interrupt\n"
    script += f"with exit_on_interrupt([], is_last=True):\n{code}    0 / 0\n"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}", "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        130,
        "" if within_import else "raised\n",
        "maml: stopped by Ctrl-C\n",
    )


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_processes_of_processes_are_ended() -> None:
    child = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    end_descendants()
    assert child.wait(timeout=30) < 0
    child.stdout.close()
    stat = Path(f"/proc/{grandchild}/stat")
    assert not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"
