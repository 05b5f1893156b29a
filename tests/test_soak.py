"""The soak: each attack in its short form, and each attack counts the faults of a program that has them."""

import contextlib
import itertools
import json
import math
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer

from maml_cli.config import Config, load_config
from maml_cli.dev.soak import __main__ as soak
from maml_cli.dev.soak import (
    commands,
    concurrency,
    fuzz,
    kernel_driver,
    limits,
    misspellings,
    poison,
    processes,
    resume,
    sanitizers,
    signals,
    targets,
    trained,
)
from maml_cli.dev.soak.attacks import ALONE, ATTACKS, AttackSource
from maml_cli.dev.soak.document import num_faults, read_soak, soak_table
from maml_cli.dev.soak.processes import Outcome, Sending
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally
from maml_cli.dev.soak.targets import Target
from maml_cli.dev.soak.trained import Fingerprint
from maml_cli.engines import Engine, StepResult, TrainState, kernel_build, make_engine, outer_step, registry
from maml_cli.engines.finite import keep_finite
from maml_cli.errors import ConfigError
from maml_cli.experiment import build_experiment
from maml_cli.runs import checkpoint, directory, open_checkpoint
from maml_cli.tasks import make_generator
from maml_cli.training import init_state, plan, restore_state, saving, session
from maml_cli.training.signals import Stop

SCALE = 0.004


@pytest.fixture(scope="module", autouse=True)
def _preloaded() -> None:
    processes.preload()


def _attack(name: str, scratch: Path, scale: float = SCALE) -> SoakRow:
    return ATTACKS[name].load()(scratch, scale=scale)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_short_form_of_an_attack_tries_something_and_counts_no_fault(name: str, tmp_path: Path) -> None:
    row = _attack(name, tmp_path)
    assert row.failures == [] and num_faults(row) == 0
    assert row.tries > 0 or "skipped" in row.attack


def test_log_lines_that_a_resume_leaves_behind_are_changed_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills between checkpoints, of which there is none before the last outer step, leave lines that training would
    write a second time."""
    rare = [
        "--set=outer.steps=400",
        "--set=run.eval_every=0",
        "--set=run.log_every=1",
        "--set=run.checkpoint_every=400",
    ]
    monkeypatch.setattr(targets, "SHORT", [*trained.SHORT, *rare])
    monkeypatch.setattr(directory, "truncate_lines", lambda file, *, up_to_step: None)
    assert _attack("kills", tmp_path, 0.02).changed > 0


def test_a_writer_that_is_not_atomic_loses_runs_to_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first checkpoint is named in last.json before it is complete, for most of the time of the training.

    Without the choice of an older checkpoint, or of a new start, for a damaged one.
    """

    def write_slowly(run: Path, step: int, contents: dict[str, Any]) -> Path:
        file = directory.checkpoint_file(run, step)
        data = checkpoint.encode(contents)
        directory._write_last(run, file, step, checkpoint.digest(data))
        file.write_bytes(data[: len(data) // 2])
        time.sleep(0.5 if step == 0 else 0)
        file.write_bytes(data)
        return file

    monkeypatch.setattr(saving, "save_checkpoint", write_slowly)
    monkeypatch.setattr(plan, "newest_good_checkpoint", lambda run, config: (open_checkpoint(run), ""))
    assert _attack("kills", tmp_path, 0.02).losses > 0


def test_a_decoder_that_does_not_check_lets_damage_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "decode", lambda data, sha256=None: {})
    for name in ("bits", "truncations"):
        (tmp_path / name).mkdir()
        row = _attack(name, tmp_path / name)
        assert row.changed > 0.9 * row.tries / 2  # all that were decoded in memory


def test_a_decoder_that_raises_other_errors_is_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(data: bytes, sha256: str | None = None) -> dict[str, Any]:
        raise ValueError("bad CRC")

    monkeypatch.setattr(checkpoint, "decode", decode)
    row = _attack("truncations", tmp_path)
    assert row.tracebacks == row.tries


def test_state_that_a_checkpoint_lacks_changes_resumed_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The random streams of the tasks are those of the start."""

    def restore(config: Config, *args: Any) -> TrainState:
        state = restore_state(config, *args)
        state.generators[:] = [make_generator(seed, "tasks") for seed in config.seeds]
        return state

    monkeypatch.setattr(resume, "restore_state", restore)
    row = _attack("resume", tmp_path)
    assert row.changed > 0 and "other bytes after the next outer step" in row.failures[0]


def test_an_error_that_a_full_disk_turns_into_success_is_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that ignores that its checkpoint could not be written ends with exit code 0."""

    def write(file: Path, data: bytes) -> None:
        with contextlib.suppress(OSError):
            file.write_bytes(data)

    monkeypatch.setattr(directory, "write_atomic", write)
    row = _attack("file-size", tmp_path, 0.02)
    assert row.losses + row.changed > 0


def test_temporary_files_that_remain_are_losses(tmp_path: Path) -> None:
    tally = Tally("x")
    limits.check_no_temporary_files(tally, tmp_path, "line")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".last.json.tmp-1").touch()
    limits.check_no_temporary_files(tally, tmp_path, "line")
    assert (tally.losses, tally.failures) == (1, ["losses: line: left ['run/.last.json.tmp-1']"])


def test_an_engine_whose_results_vary_changes_values_in_random_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def varying(*args: Any, **kwargs: Any) -> Any:
        engine = make_engine(*args, **kwargs)

        def step(state: TrainState, count: int) -> StepResult:
            result = engine(state, count)
            for value in state.meta_params.params.values():
                value.data.add_(1e-3 * (os.getpid() % 1000 + 1))
            return result

        return step

    monkeypatch.setattr(session, "make_engine", varying)
    assert _attack("trainings", tmp_path).changed > 0


def test_a_loader_that_raises_or_reads_another_config_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = Tally("x")
    for loader in ("load_config", "from_dict"):
        with monkeypatch.context() as patch:
            patch.setattr(fuzz, loader, lambda *args, **kwargs: json.loads("{"))
            fuzz.check_in_process(tally, tmp_path / "a.yaml", b"", [])
    with monkeypatch.context() as patch:
        patch.setattr(fuzz, "from_dict", lambda *args, **kwargs: None)
        fuzz.check_in_process(tally, tmp_path / "a.yaml", b"", [])
    assert (tally.tries, tally.tracebacks, tally.changed) == (3, 2, 1)


def test_commands_that_crash_hang_or_write_outside_are_counted(tmp_path: Path) -> None:
    """The program is replaced by three others, in the place of `maml`."""

    def write_outside() -> None:
        Path("../outside").write_text("changed")

    def hang() -> None:
        time.sleep(60)

    def crash() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    (tmp_path / "hostile").mkdir()
    (tmp_path / "outside").write_text("intact")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "SECONDS", 0.5)
        for program, counts in ((write_outside, (0, 1)), (hang, (1, 0)), (crash, (1, 0))):
            patch.setattr(processes, "main", program)
            tally = Tally("x")
            commands.run_commands(tally, tmp_path / "hostile", "line", [["eval"]])
            assert (tally.tracebacks, tally.changed) == counts, program


def test_resumes_without_a_lock_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes append the same lines to metrics.jsonl."""

    @contextlib.contextmanager
    def no_lock(run: Path) -> Iterator[None]:
        yield

    run, _ = trained.train_undisturbed(tmp_path)
    monkeypatch.setattr(directory, "training_lock", no_lock)
    tally = Tally("x")
    for _ in range(3):
        concurrency._resume_at_once(tally, run, tmp_path / "copy", 4)
    assert tally.changed + tally.losses + tally.tracebacks > 0


KERNEL_FAULTS = {
    "args.lengths[i] != expected[i]": "(i > 0 && args.lengths[i] != expected[i])",
    "team.task_losses[task] = ": "team.stopped = false, team.task_losses[task] = ",
    "team.num_added++": "team.num_added += team.size",
}
"""The length of x is not compared; the threads of a team write to the same place; a sum depends on their number."""


def test_a_kernel_with_an_unchecked_length_a_data_race_and_results_that_vary_with_its_threads_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = kernel_build.SOURCE.read_text()
    for statement, faulty in KERNEL_FAULTS.items():
        assert source.count(statement) == 1
        source = source.replace(statement, faulty)
    for header in kernel_build.HEADERS:
        shutil.copy(header, tmp_path)
    monkeypatch.setattr(kernel_build, "SOURCE", tmp_path / "faulty.cpp")
    kernel_build.SOURCE.write_text(source)
    row = _attack("sanitizers", tmp_path)
    if "skipped" in row.attack:
        pytest.skip("no compiler with sanitizers on this machine")
    for report in (
        r"address,undefined: x of \d+ elements.*heap-buffer-overflow",
        "thread: .*2 threads.*data race",
        "address,undefined: .*2 threads, plain.*other bytes than the kernel without sanitizers",
        "thread: x of length -1,.*not refused",
    ):
        assert any(re.search(report, line) for line in row.failures), report


def test_in_the_full_form_each_number_of_runs_and_threads_meets_each_kind_of_call() -> None:
    """Calls take the pairs and the kinds in turn; two lengths without a common divisor meet in all combinations."""
    pairs, kinds = len(sanitizers.RUNS_AND_THREADS), len(sanitizers.VARIANTS)
    num_calls = kinds * sum(len(configs) for _, configs in sanitizers.kernels_and_configs())
    assert math.gcd(pairs, kinds) == 1 and num_calls >= pairs * kinds
    assert {threads for _, threads in sanitizers.RUNS_AND_THREADS} == {*range(1, 13)}


def test_without_a_compiler_that_has_sanitizers_the_attack_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(Path("/bin/false")))
    row = _attack("sanitizers", tmp_path)
    assert row.tries == 0 and row.attack.endswith("(skipped: the compiler lacks address,undefined, thread)")


@pytest.mark.parametrize(
    ("script", "replies"),
    [
        ("exit 3", ["exit code 3"] * 3),
        ("echo a SUMMARY: x >&2; echo last >&2; exit 1", ["a SUMMARY: x"] * 3),
        ("sleep 60", ["did not end within 0.3 seconds"] * 3),
        ("exit 0", ["ended without a reply"] * 3),
    ],
)
def test_a_process_that_ends_hangs_or_does_not_reply_is_the_report_of_each_call(
    script: str, replies: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_driver, "SECONDS", 0.3)
    driver = tmp_path / "driver"
    driver.write_text(f"#!/bin/sh\n{script}\n")
    driver.chmod(0o755)
    ((_, (config, *_)), *_) = sanitizers.kernels_and_configs()
    call = sanitizers.make_call(config, 1, 1, "plain")
    assert kernel_driver.replay(driver, [call] * 3) == replies


def test_a_report_at_the_exit_replaces_the_reply_to_the_last_call(tmp_path: Path) -> None:
    ((_, (config, *_)), *_) = sanitizers.kernels_and_configs()
    call = sanitizers.make_call(config, 1, 1, "plain")
    size = 8 + len(kernel_driver.contents(call))
    driver = tmp_path / "driver"
    driver.write_text(f"#!/bin/sh\nhead -c {2 * size} /dev/zero; exit 23\n")
    driver.chmod(0o755)
    first, last = kernel_driver.replay(driver, [call] * 2)
    assert first == kernel_driver.Reply(0, bytes(size - 8)) and last == "exit code 23"


@pytest.mark.parametrize(("every", "is_fault"), [(400, True), (600, False)])
def test_wrong_hints_are_counted_below_the_goal_and_their_share_is_in_the_row(
    every: int, is_fault: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every 400th is 0.25 %, more than the 0.2 % that may be wrong; every 600th is less."""
    calls = itertools.count(1)

    def suggest(misspelt: str, known: list[str]) -> str | None:
        return None if next(calls) % every == 0 else " or ".join(known)

    monkeypatch.setattr(misspellings, "suggest_key", suggest)
    row = _attack("misspellings", tmp_path, 1)
    misses = row.tries // every
    assert row.changed == (misses if is_fault else 0)
    assert f"{math.floor(1e4 * (1 - misses / row.tries)) / 1e2} % with the right hint" in row.attack


def test_trainings_that_ignore_or_swallow_signals_are_counted(tmp_path: Path) -> None:
    """By hand: a run without a file has begun and is not complete; the first signal comes after a second."""
    (tmp_path / signals.RUN).mkdir()
    target = Target([], Fingerprint("bytes", "of another"), 1.0)
    sent = [Sending(1.0, signal.SIGTERM), Sending(1.1, signal.SIGHUP)]
    for code, err, seconds, counts in (
        (143, "stopped by SIGTERM; checkpoint saved.", 1.2, (0, 0)),
        (129, "stopped by SIGHUP; checkpoint saved.", 1.2, (0, 0)),
        (143, "", 1.2, (1, 0)),
        (130, "", 1.2, (0, 1)),  # of no signal that was sent
        (143, "Traceback", 1.2, (0, 1)),
        (143, "", 1.0 + signals.SECONDS_TO_END + 0.1, (0, 1)),
        (0, "", 1.2, (1, 0)),
        (-signal.SIGTERM, "", 1.2, (1, 0)),
        (-signal.SIGTERM, "stopped by SIGTERM; checkpoint saved.", 1.2, (0, 0)),
    ):
        tally = Tally("x")
        signals.check_stop(tally, Outcome(code, "", err, seconds), sent, target, tmp_path, "line")
        assert (tally.losses, tally.tracebacks) == counts, (code, err)


def test_a_program_that_does_not_catch_signals_loses_outer_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maml_cli.interrupts.stop_signals_exit", contextlib.nullcontext)
    monkeypatch.setattr(session, "catch_stop", lambda: contextlib.nullcontext(Stop()))
    row = _attack("signals", tmp_path, 0.05)
    assert row.losses > 0 and "ended by the signal, without saving" in "".join(row.failures)


@pytest.mark.parametrize(
    ("name", "section", "key", "is_expected"),
    [
        ("NaN in the gradient", "params", "hidden0.w", torch.isnan),
        ("Inf in the gradient", "rule_params", "head.b", torch.isinf),
    ],
)
def test_poisons_of_the_gradient_leave_the_loss_finite(
    name: str, section: str, key: str, is_expected: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """By the unrolled gradient: 0 * Inf for the first weights, an overflow for the alpha of the bias; of one task."""
    config = load_config("smoke", [option.removeprefix("--set=") for option in poison.OPTIONS]).config
    experiment = build_experiment(config)
    state = init_state(config, experiment)
    batch = experiment.sample(state.generators)
    in_batch = poison.POISONS[name].in_batch
    assert in_batch is not None
    in_batch(batch, 0)
    losses, gradients = experiment.algorithm.meta_gradient(state.meta_params, batch, 0)
    gradient = getattr(gradients, section)[key]
    assert losses.isfinite().all()
    assert is_expected(gradient[0, 0]).any() and gradient[0, 1:].isfinite().all()


def test_an_update_that_nobody_checks_is_counted_for_one_seed_and_for_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "keep_finite", lambda engine: engine)
    row = _attack("injection", tmp_path)
    assert row.changed == 2 and [" in the update of seed " in line for line in row.failures] == [True, True]


def test_a_loss_or_gradient_that_nobody_checks_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one seed the message then blames the update; of several, the check of updates still freezes the run."""
    monkeypatch.setattr(outer_step, "math", SimpleNamespace(isfinite=lambda value: True))
    row = _attack("injection", tmp_path)
    assert row.changed == 2 and all("in the update" not in line and " of 1 at " in line for line in row.failures)


def test_seeds_that_a_frozen_one_changes_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other seeds move by 1e-3 at each call after it."""

    def leaking(engine: Engine) -> Engine:
        def step(state: TrainState, count: int) -> StepResult:
            result = keep_finite(engine)(state, count)
            for value in state.meta_params.params.values():
                value[(state.diverged == 0) & (state.diverged > 0).any()] += 1e-3
            return result

        return step

    monkeypatch.setattr(registry, "keep_finite", leaking)
    row = _attack("injection", tmp_path)
    assert row.changed == 3 and all("other bytes in step-" in line and " of 3 at " in line for line in row.failures)


def test_a_process_is_ended_after_its_time_and_a_kill_is_the_exit_code(tmp_path: Path) -> None:
    def sleep() -> None:
        print("a line", flush=True)
        time.sleep(60)

    ended = processes.wait(processes.start(sleep, tmp_path), seconds=0.3)
    assert ended.code == processes.TIMED_OUT and ended.out == "a line\n" and ended.seconds < 30
    killed = processes.wait(processes.start(sleep, tmp_path), signals=[Sending(0.3, signal.SIGKILL)])
    assert killed.code == -signal.SIGKILL


def test_exit_codes_and_tracebacks_of_forks_are_those_of_processes(tmp_path: Path) -> None:
    for body, code in ((lambda: None, 0), (lambda: sys.exit(3), 3), (lambda: 1 // 0, 1)):
        outcome = processes.wait(processes.start(body, tmp_path))
        assert outcome.code == code and ("ZeroDivisionError" in outcome.err) == (code == 1)
        tally = Tally("x")
        assert tally.check_end(outcome, {0, 3}, "line") == (code != 1) and tally.tracebacks == (code == 1)


def test_the_command_writes_the_rows_and_exits_with_1_if_any_has_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An attack that raises is a row with a traceback: it does not end the others."""
    faulty = SoakRow("kills", 3, 1, 0, 2, 0.1, ["losses: killed after 0.1 s"])
    results: dict[str, SoakRow] = {"good": faulty._replace(losses=0, changed=0, failures=[]), "bad": faulty}

    def load(source: AttackSource) -> Any:
        return lambda folder, scale: results[source.module]

    monkeypatch.setattr(AttackSource, "load", load)
    monkeypatch.setattr(soak, "ATTACKS", {name: AttackSource(name) for name in ("good", "bad", "raises")})
    soak.main(["good"], scale=0.5, jobs=2, out=tmp_path)
    assert read_soak(tmp_path / "soak.json").rows == {"good": results["good"]}
    with pytest.raises(typer.Exit) as stop:
        soak.main(scale=0.5, jobs=2, out=tmp_path)
    written = read_soak(tmp_path / "soak.json")
    assert stop.value.exit_code == 1 and written.scale == 0.5
    assert written.rows["bad"] == faulty and written.rows["raises"].tracebacks == 1
    assert "KeyError: 'raises'" in written.rows["raises"].failures[0]
    assert soak_table(written.rows.values()) in capsys.readouterr().out
    with pytest.raises(ConfigError, match="absent: no such attack; there are good, bad, raises"):
        soak.main(["absent"], scale=0.5, jobs=2, out=tmp_path)


def test_attacks_that_run_alone_are_attacks() -> None:
    assert ATTACKS.keys() >= ALONE
