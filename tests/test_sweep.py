"""Sweeps: every trial once, with the error of its own log, whatever stops in between."""

import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from maml_cli.errors import ConfigError
from maml_cli.reporting.sweep_scales import scale_of
from maml_cli.sweeps import (
    Store,
    Sweep,
    liveness,
    open_store,
    open_sweep,
    read_rows,
    read_space,
    read_sweep,
    work,
    worker,
)
from maml_cli.sweeps.liveness import Watch, worker_lock
from maml_cli.sweeps.record import without_password
from maml_cli.sweeps.slots import claim_slot, enter_slots
from maml_cli.sweeps.space import trial_config
from maml_cli.training import STOPPED_BY_CALLER, SessionResult, plan_training, run_session
from tests.conformance import FULL
from tests.conftest import ROOT, Cli

TINY = ["outer.steps=4", "run.eval_tasks=4", "run.log_every=2", "run.eval_every=2", "run.checkpoint_every=2"]
TINY = [*TINY, "run.engine=eager", "outer.tasks_per_step=2", "model.hidden=[4]"]
SMOKE = ["--config", "smoke", *(word for setting in TINY for word in ("--set", setting))]
GRID = ["--grid", "inner.alpha.init=0.003,0.01", "--grid", "inner.steps=1,2"]


def _tiny(out: str, grid: list[str], *settings: str) -> Sweep:
    from maml_cli.sweeps import plan_sweep

    return plan_sweep("smoke", [*TINY, *settings], read_space(grid=grid), out=Path(out), storage=None)


def _opened(sweep: Sweep) -> Store:
    open_sweep(sweep)
    return open_store(sweep)


def last_error(run: Path) -> float:
    """The mean over seeds of the last validation error, read from the log with nothing of the package."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    errors = [line["eval"]["grid_mse"] for line in lines if "eval" in line][-1]
    by_seed = errors if isinstance(errors[0], list) else [errors]
    return statistics.fmean(seed[-1] for seed in by_seed)


def _trials(cli: Cli, directory: str) -> dict[int, dict[str, Any]]:
    document = json.loads(cli("sweep", "show", directory, "--json").out)
    return {trial["number"]: trial for trial in document["trials"]}


@pytest.fixture
def draws() -> None:
    """Figures are drawn in this test."""


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures, which take longer than the trainings, are drawn in tests that ask for it."""
    if "draws" not in request.fixturenames:
        monkeypatch.setattr("maml_cli.reporting.sweep_figures.save_figure", lambda draw, file: file)


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[SessionResult]:
    """Every training of a worker in this process."""
    results: list[SessionResult] = []

    def recorded(*arguments: Any, **options: Any) -> SessionResult:
        results.append(run_session(*arguments, **options))
        return results[-1]

    monkeypatch.setattr(worker, "run_session", recorded)
    return results


def test_a_grid_trains_every_combination_and_ranks_it_by_the_error_of_its_log(cli: Cli) -> None:
    result = cli("sweep", *SMOKE, *GRID, "--set", "run.seeds=2", "--out", "grid")
    assert (result.code, result.out) == (0, "grid\n")
    trials = _trials(cli, "grid")
    values = [tuple(trials[number]["values"].values()) for number in (1, 2, 3, 4)]
    assert values == [(0.003, 1), (0.003, 2), (0.01, 1), (0.01, 2)]
    for number, trial in trials.items():
        run = Path(trial["run"])
        assert run == Path(f"grid/trial-{number:04d}")
        config = (run / "config.yaml").read_text()
        assert f"init: {trial['values']['inner.alpha.init']}" in config
        assert f"  steps: {trial['values']['inner.steps']}\n" in config
        assert trial["error"] == pytest.approx(last_error(run), rel=1e-12)
        # Student's t of two values has the 97.5 % quantile 12.706: half the interval is 12.706 * |a - b| / 2.
        first, second = trial["errors"]
        assert trial["ci95_seeds"] == pytest.approx(12.7062 * abs(first - second) / 2, rel=1e-4)
    order = [trial["error"] for trial in trials.values()]
    assert order == sorted(order)
    assert {trial["state"] for trial in trials.values()} == {"complete"}
    assert "drawn as grid/plots/errors.png, grid/plots/errors-parallel.png\n" in result.err


def test_the_same_command_trains_nothing_twice(cli: Cli, sessions: list[SessionResult]) -> None:
    arguments = ["sweep", *SMOKE, "--grid", "inner.steps=1,2", "--out", "again"]
    cli(*arguments)
    assert len(sessions) == 2
    again, resumed = cli(*arguments), cli("sweep", "--resume", "again")
    assert len(sessions) == 2
    for result in (again, resumed):
        assert (result.code, result.out) == (0, "again\n")
        assert "joined, 2 trials have ended, 2 in all" in result.err


def test_another_space_or_config_in_the_same_directory_is_refused_with_the_difference(cli: Cli) -> None:
    cli("sweep", *SMOKE, "--grid", "inner.steps=1", "--out", "one")
    other = cli("sweep", *SMOKE, "--grid", "inner.steps=1,3", "--out", "one")
    assert other.code == 3 and len(other.err.splitlines()) == 1
    assert "one: another sweep: --grid inner.steps is 1 there and 1,3 here;" in other.err
    config = cli("sweep", *SMOKE, "--grid", "inner.steps=1", "--set", "run.seed=5", "--out", "one")
    assert config.code == 3 and "run.seed is 0 there and 5 here" in config.err
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    taken = cli("sweep", *SMOKE, "--grid", "inner.steps=1", "--out", "full")
    assert taken.code == 3 and "full: not empty, and no sweep" in taken.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "inner.stepz=1"], "--grid inner.stepz=1: inner.stepz: unknown key; did you mean inner.steps?"),
        (["--grid", "inner.steps=1,0"], "--grid inner.steps=0: inner.steps must be at least 1, got 0"),
        (["--grid", "inner.steps"], "--grid inner.steps: must be KEY=VALUE,VALUE, such as inner.steps=1,5"),
        (["--grid", "inner.steps=1,1"], "--grid inner.steps=1,1: 1 is given twice"),
        (["--grid", "model.hidden=[4"], "--grid model.hidden=[4: not valid YAML"),
        (["--grid", "run.eval_every=2,0"], "run.eval_every: 0; a sweep compares validation errors"),
        (["--grid", "inner.steps=1", "--grid", "inner.steps=2"], "--grid inner.steps: given twice"),
        (["--grid", "inner.steps=1", "--trials", "3"], "--grid: all combinations are trained; leave out --trials"),
        (["--trials", "3"], "--grid: missing; give --grid KEY=VALUE,VALUE, or --trials N with --range or --choose"),
        (["--range", "inner.alpha.init=0..1"], "--trials: missing"),
        (["--trials", "3", "--range", "inner.alpha.init=0..1:log"], "both ends must be above 0"),
        (["--trials", "3", "--range", "inner.alpha.init=2..1"], "must ascend"),
        (["--trials", "3", "--range", "inner.alpha.init=1"], "must be KEY=LOW..HIGH or KEY=LOW..HIGH:log"),
        (["--trials", "3", "--range", "inner.steps=0..3"], "--range inner.steps=0: inner.steps must be at least 1"),
        (["--trials", "3", "--choose", "model.activation=relu,rleu"], "did you mean relu?"),
        (["--grid", "inner.steps=1", "--storage", "oracle://x"], "--storage oracle://x: must begin with postgresql://"),
        (["--resume", "x", "--grid", "inner.steps=1"], "--resume: a sweep keeps its config and space"),
    ],
)
def test_a_wrong_option_is_one_line_and_nothing_is_written(cli: Cli, arguments: list[str], message: str) -> None:
    result = cli("sweep", *([] if "--resume" in arguments else SMOKE), *arguments, "--out", "wrong")
    if "--resume" in arguments:
        result = cli("sweep", *arguments)
    assert result.code == 2 and message in result.err and len(result.err.splitlines()) == 1, result.err
    assert os.listdir() == []


def test_without_optuna_the_message_says_how_to_install_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    for arguments in (["sweep", *SMOKE, *GRID], ["sweep", "show", "x"]):
        result = cli(*arguments)
        expected = "maml sweep: needs Optuna, which is not installed; install it with: pip install 'maml-cli[sweep]'\n"
        assert (result.code, result.err) == (2, expected)


def test_values_with_commas_are_lists_in_brackets() -> None:
    space = read_space(grid=["model.hidden=[40,40],[80,80]", "inner.alpha.init=1e-3,0.5"])
    assert [*space.combinations()] == [
        {"model.hidden": hidden, "inner.alpha.init": init}
        for hidden in ("[40, 40]", "[80, 80]")
        for init in ("0.001", "0.5")
    ]
    with pytest.raises(ConfigError, match="10,201 combinations"):
        read_space(grid=[f"{key}={','.join(map(str, range(101)))}" for key in ("run.seed", "inner.steps")])


def test_ranges_of_whole_numbers_stay_whole_and_a_float_field_takes_whole_ends() -> None:
    steps, alpha = read_space(trials=1, ranges=["inner.steps=1..8:log", "inner.alpha.init=0..1"]).dimensions
    assert (steps.low, steps.high, steps.is_log, steps.is_whole) == (1, 8, True, True)
    assert (alpha.low, alpha.high, alpha.is_log, alpha.is_whole) == (0.0, 1.0, False, False)


SAMPLED = ["--trials", "5", "--range", "inner.alpha.init=1e-3..1e-1:log", "--choose", "model.activation=relu,tanh"]


def _sampled_values(cli: Cli, directory: str) -> dict[int, Any]:
    return {number: trial["values"] for number, trial in _trials(cli, directory).items()}


def test_a_sampler_is_reproducible_by_its_seed_also_after_a_stop(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seed in (("first", 0), ("other", 1)):
        assert cli("sweep", *SMOKE, *SAMPLED, "--seed", seed, "--out", name).code == 0
    is_stopped = False

    def interrupted_in_the_third(plan: Any, *, on_step: Any, **options: Any) -> SessionResult:
        def wrapped(step: int, loss: float) -> None:
            nonlocal is_stopped
            on_step(step, loss)
            if plan.out.name == "trial-0003" and not is_stopped:
                is_stopped = True
                os.kill(os.getpid(), signal.SIGINT)

        return run_session(plan, on_step=wrapped, **options)

    monkeypatch.setattr(worker, "run_session", interrupted_in_the_third)
    stopped = cli("sweep", *SMOKE, *SAMPLED, "--out", "stopped")
    assert (stopped.code, stopped.out) == (130, "stopped\n")
    lines = stopped.err.splitlines()
    assert lines[-2].startswith("trial 3 of 5 (") and lines[-2].endswith("): begins")
    assert lines[-1] == "stopped: stopped; continue with: maml sweep --resume stopped"
    states = {number: trial["state"] for number, trial in _trials(cli, "stopped").items()}
    assert states == {1: "complete", 2: "complete", 3: "stopped", 4: "waiting", 5: "waiting"}
    assert cli("sweep", "--resume", "stopped").code == 0
    first = _sampled_values(cli, "first")
    assert _sampled_values(cli, "stopped") == first
    assert _sampled_values(cli, "other") != first
    assert all(0.001 <= values["inner.alpha.init"] <= 0.1 for values in first.values())


@pytest.mark.parametrize("is_between_trials", [False, True])
def test_ctrl_c_outside_of_a_training_has_the_line_of_the_sweep_alone(
    is_between_trials: bool, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first outer step of a trial, and where the next trial is claimed; SIGINT may be ignored around us."""
    name = "enter_slots" if is_between_trials else "plan_training"
    monkeypatch.setattr(worker, name, lambda *arguments, **options: signal.raise_signal(signal.SIGINT))
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        stopped = cli("sweep", *SMOKE, *GRID, "--out", "stopped", "--quiet")
    finally:
        signal.signal(signal.SIGINT, previous)
    assert (stopped.code, stopped.out) == (130, "stopped\n")
    assert stopped.err == "stopped: stopped; continue with: maml sweep --resume stopped\n"


def test_pruning_follows_the_median_of_the_trials_that_ended(cli: Cli, sessions: list[SessionResult]) -> None:
    """Each decision is repeated from the logs: pruned at the first validation after 30 % of the outer steps at which
    its best error is above the median of those of the completed trials before it, of which there must be five."""
    settings = ["--set", "outer.steps=10", "--set", "run.eval_every=1", "--set", "outer.lr=0.01"]
    space = ["--trials", "12", "--range", "inner.alpha.init=1e-3..0.3:log"]
    assert cli("sweep", *SMOKE, *settings, *space, "--out", "pruned").code == 0
    trials = _trials(cli, "pruned")
    completed: list[dict[int, float]] = []
    pruned = 0
    for number in range(1, 13):
        log = _errors_by_step(Path(trials[number]["run"]))
        expected = 10
        for step in (step for step in log if 3 <= step < 10 and len(completed) >= 5):
            best = min(error for at, error in log.items() if 1 <= at <= step)
            if best > statistics.median(other[step] for other in completed):
                expected = step
                break
        assert trials[number]["step"] == expected == max(log), number
        if expected < 10:
            pruned += 1
            assert trials[number]["state"] == "pruned"
            assert (Path(trials[number]["run"]) / f"checkpoints/step-{expected:08d}.pt").exists()
        else:
            completed.append(log)
    assert 0 < pruned < 7
    assert sum(session.result.stopped_by == STOPPED_BY_CALLER for session in sessions) == pruned


def _errors_by_step(run: Path) -> dict[int, float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["eval"]["grid_mse"][-1] for line in lines if "eval" in line}


def test_a_claimed_trial_is_left_to_its_worker_while_it_lives_and_its_run_resumed_after_it_died(
    tmp_path: Path, sessions: list[SessionResult]
) -> None:
    sweep = _tiny(str(tmp_path / "claimed"), ["inner.steps=1,2"])
    store = _opened(sweep)
    enter_slots(store, sweep.space, Watch(sweep.directory))
    with pytest.raises(KeyError), worker_lock(sweep.directory) as other:
        claim = claim_slot(store, sweep.space, other)
        assert claim is not None and claim.slot == 1
        config = trial_config(sweep.config, claim.values)
        plan = plan_training(config, (), out=sweep.run(1), resume="auto", device=None)
        half = run_session(
            plan, quiet=True, should_stop=lambda: (sweep.run(1) / "checkpoints/step-00000002.pt").exists()
        )
        assert half.result.step == 2 and half.result.stopped_by == STOPPED_BY_CALLER
        assert work(sweep, store) == 0
        assert [session.run.name for session in sessions] == ["trial-0002"]
        assert [row.state for row in read_rows(sweep, store)] == ["complete", "running"]
        raise KeyError("the worker dies")
    assert read_rows(sweep, store)[1].state == "stopped"
    assert work(sweep, store) == 0
    assert [(session.run.name, session.result.steps_done) for session in sessions[1:]] == [("trial-0001", 2)]
    assert [row.state for row in read_rows(sweep, store)] == ["complete", "complete"]
    undisturbed = run_session(plan._replace(out=tmp_path / "whole"), quiet=True)
    assert (sweep.run(1) / "metrics.jsonl").read_bytes() == (undisturbed.run / "metrics.jsonl").read_bytes()


def test_a_trial_that_two_processes_entered_is_trained_once(tmp_path: Path, sessions: list[SessionResult]) -> None:
    sweep = _tiny(str(tmp_path / "twice"), ["inner.steps=1,2"])
    store = _opened(sweep)
    for _ in range(2):  # as by two processes, neither of which has seen the trials of the other
        for slot, values in enumerate(sweep.space.combinations(), start=1):
            store.study.enqueue_trial(values, user_attrs={"slot": slot})
    work(sweep, store)
    assert [session.run.name for session in sessions] == ["trial-0001", "trial-0002"]
    states = [trial.state for trial in store.study.get_trials()]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.FAIL] * 2


def test_a_file_error_ends_the_worker_and_the_trial_waits_again(cli: Cli, sessions: list[SessionResult]) -> None:
    Path("files/trial-0001").mkdir(parents=True)
    sweep = _tiny("files", ["inner.steps=1"])
    Path("files/trial-0001").rmdir()
    open_sweep(sweep)
    Path("files/trial-0001").mkdir()
    Path("files/trial-0001/mine").write_text("")
    result = cli("sweep", "--resume", "files")
    assert result.code == 3 and "files/trial-0001: not empty" in result.err
    Path("files/trial-0001/mine").unlink()
    assert cli("sweep", "--resume", "files").code == 0
    assert len(sessions) == 1 and _trials(cli, "files")[1]["state"] == "complete"


def test_diverged_trials_have_an_infinite_error_and_rank_after_the_others(cli: Cli) -> None:
    result = cli("sweep", *SMOKE, "--grid", "inner.alpha.init=1e30,0.01", "--out", "far")
    assert result.code == 0
    trials = _trials(cli, "far")
    assert list(trials) == [2, 1]
    assert (trials[1]["state"], trials[1]["error"], trials[1]["errors"]) == ("diverged", None, [None])
    assert "diverged" in cli("sweep", "show", "far").out


def test_a_sampled_combination_that_is_not_valid_fails_and_the_others_are_trained(cli: Cli) -> None:
    """Multi-step loss needs several inner steps: each of the values is valid with some of the others only."""
    space = ["--choose", "inner.steps=1,2", "--choose", "outer.multi_step_loss_until=0,2", "--trials", "8"]
    base = ["--set", "inner.steps=2"]
    result = cli("sweep", *SMOKE, *base, *space, "--out", "mixed")
    assert result.code == 0, result.err
    for trial in _trials(cli, "mixed").values():
        is_invalid = trial["values"] == {"inner.steps": 1, "outer.multi_step_loss_until": 2}
        assert (trial["state"] == "failed") == is_invalid
        assert bool(trial["problem"]) == is_invalid
    assert "failed" in cli("sweep", "show", "mixed").out


def test_optuna_prints_nothing(cli: Cli) -> None:
    result = cli("sweep", *SMOKE, *SAMPLED, "--out", "quiet")
    expected = re.compile(r"quiet: |trial \d of 5 \(|best: |drawn as |next: ")
    assert all(expected.match(line) for line in result.err.splitlines()), result.err
    assert cli("sweep", *SMOKE, *SAMPLED, "--quiet", "--out", "quieter").err == ""


@pytest.mark.parametrize("url", ["sqlite:///book.db"])
def test_a_database_holds_the_same_sweep_for_directories_of_the_same_name(cli: Cli, url: str) -> None:
    """As on two machines that share the database alone."""
    assert cli("sweep", *SMOKE, "--grid", "inner.steps=1,2", "--storage", url, "--out", "here/both").code == 0
    second = cli("sweep", *SMOKE, "--grid", "inner.steps=1,2", "--storage", url, "--out", "there/both")
    assert second.code == 0 and "trial" not in os.listdir("there/both")
    assert [trial["state"] for trial in _trials(cli, "there/both").values()] == ["complete", "complete"]
    other = cli("sweep", *SMOKE, "--grid", "inner.steps=2", "--storage", url, "--out", "elsewhere/both")
    assert other.code == 3 and "has another sweep named both: --grid inner.steps is 1,2 there and 2 here" in other.err


def test_a_database_without_its_driver_or_server_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maml_cli.sweeps.storage.SECONDS_BETWEEN_ATTEMPTS", 0)
    arguments = ["sweep", *SMOKE, "--grid", "inner.steps=1", "--out", "db"]
    driver = cli(*arguments, "--storage", "mysql://me:secret@localhost/x")
    assert driver.code == 2 and driver.err.endswith("install it with: pip install mysqlclient\n")
    assert "secret" not in driver.err + Path("db/sweep.json").read_text()
    server = cli(*arguments[:-1], "db2", "--storage", "sqlite:////proc/none/x.db")
    assert server.code == 3 and len(server.err.splitlines()) <= 2, server.err


def test_passwords_are_removed_from_urls() -> None:
    assert without_password("postgresql://me:pa@host:5432/db") == "postgresql://me@host:5432/db"
    assert without_password("redis://host/0") == "redis://host/0"


def test_a_worker_elsewhere_is_dead_once_its_heartbeat_has_not_grown_for_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    study = optuna.create_study()
    study.ask()
    study._storage.set_trial_user_attr(0, "worker", "elsewhere-1")
    watch = Watch(tmp_path)
    assert watch.is_alive(study.trials[0]) is None
    now += 60
    assert watch.is_alive(study.trials[0]) is None
    study._storage.set_trial_user_attr(0, "beat", 1)
    assert watch.is_alive(study.trials[0]) is True
    now += 60.1
    assert watch.is_alive(study.trials[0]) is False


def test_a_heartbeat_grows_and_notices_that_its_trial_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "SECONDS_BETWEEN_BEATS", 0.01)
    study = optuna.create_study()
    study.ask()
    store = Store(study, study._storage, 0, False)
    with liveness.heartbeat(store, 0) as taken:
        wait_until(lambda: study.trials[0].user_attrs.get("beat", 0) >= 2)
        assert not taken.is_set()
        study.tell(0, state=TrialState.FAIL)
        assert taken.wait(5)


def test_a_damaged_record_or_journal_is_one_line_and_a_cut_last_line_is_removed(cli: Cli) -> None:
    cli("sweep", *SMOKE, "--grid", "inner.steps=1", "--out", "hurt")
    journal = Path("hurt/journal.log")
    good = journal.read_bytes()
    journal.write_bytes(good + b'{"op_code": 4, "worker')
    assert cli("sweep", "--resume", "hurt").code == 0
    assert journal.read_bytes().startswith(good) and b"worker\n" not in journal.read_bytes()[len(good) - 30 :]
    assert all(map(json.loads, journal.read_text().splitlines()))
    journal.write_bytes(b"not a journal\n" + good)
    damaged = cli("sweep", "show", "hurt")
    assert damaged.code == 4 and "journal.log: damaged" in damaged.err and len(damaged.err.splitlines()) == 1
    Path("hurt/sweep.json").write_text("{}")
    damaged = cli("sweep", "--resume", "hurt")
    assert damaged.code == 4 and "hurt/sweep.json: damaged" in damaged.err
    assert cli("sweep", "show", "nowhere").code == 3


def test_the_table_fits_eighty_columns_and_csv_and_json_have_full_numbers(cli: Cli, draws: None) -> None:
    cli("sweep", *SMOKE, *GRID, "--set", "run.seeds=2", "--out", "wide", "-q")
    table = cli("sweep", "show", "wide", "--csv", "wide.csv", "--plot", "wide.svg")
    assert max(map(len, table.out.splitlines())) <= 80
    lines = Path("wide.csv").read_text().splitlines()
    assert lines[0] == "trial,inner.alpha.init,inner.steps,mse,ci95_seeds,state,step,run"
    best = next(iter(_trials(cli, "wide").values()))
    assert lines[1].split(",")[3] == repr(best["error"])
    assert cli("sweep", "show", "wide", "--csv", "-").out.splitlines() == lines
    assert Path("wide.svg").exists() and Path("wide-parallel.svg").exists()
    assert cli("sweep", "show", "wide", "--plot", "x.gif").code == 2


def test_a_figure_has_a_line_for_each_value_of_the_other_key_with_intervals_over_seeds(cli: Cli) -> None:
    from maml_cli.reporting.sweep_figures import errors_figure, parallel_figure

    cli("sweep", *SMOKE, *GRID, "--set", "run.seeds=2", "--out", "drawn", "-q")
    sweep = read_sweep(Path("drawn"))
    rows = read_rows(sweep, open_store(sweep))
    by_number: Any = {row.number: row for row in rows}
    axes: Any = errors_figure(sweep, rows).axes
    alpha, steps = axes[:2]
    assert [container.get_label() for container in alpha.containers] == ["inner.steps=1", "inner.steps=2"]
    lines: Any = alpha.containers[0].lines
    line = lines[0]
    assert line.get_ydata() == pytest.approx([by_number[1].error, by_number[3].error])
    middle = line.get_xdata().mean()
    assert middle == pytest.approx((0.003 + 0.01) / 2, abs=0.001)  # less than a factor of eight: a linear axis
    segments = lines[2][0].get_segments()
    assert segments[0][1][1] == pytest.approx(by_number[1].error + by_number[1].ci95_seeds)
    assert [text.get_text() for text in steps.get_xticklabels()] == ["1", "2"]
    legend = errors_figure(sweep, rows).legends[0]
    assert "95 % interval of the mean over seeds" in [text.get_text().split(";")[0] for text in legend.get_texts()]
    parallel: Any = parallel_figure(sweep, rows).axes[0]
    best = max(parallel.lines, key=lambda line: (line.get_linewidth(), len(line.get_xdata())))
    assert len(best.get_xdata()) == 3 and best.get_ydata()[-1] == 0.0
    highest = max(line.get_zorder() for line in parallel.lines)
    for text in parallel.texts:  # on an opaque ground above the lines, none of which crosses it
        assert text.get_zorder() > highest and text.get_bbox_patch().get_alpha() in (None, 1)


def test_an_interval_that_includes_zero_leaves_the_logarithmic_axis_at_the_bottom(cli: Cli) -> None:
    """Intervals 2 ± 3 and 4 ± 1: the first bar ends at 0 and not within the panel; the axis begins below 2, the least
    positive number that is drawn."""
    from maml_cli.reporting.sweep_figures import errors_figure

    cli("sweep", *SMOKE, "--grid", "inner.steps=1,2", "--set", "run.seeds=2", "--out", "wide", "-q")
    sweep = read_sweep(Path("wide"))
    first, second = read_rows(sweep, open_store(sweep))
    rows = [first._replace(error=2.0, ci95_seeds=3.0), second._replace(error=4.0, ci95_seeds=1.0)]
    figure = errors_figure(sweep, rows)
    axis: Any = figure.axes[0]
    ends = sorted(tuple(point[1] for point in bar) for bar in axis.containers[0].lines[2][0].get_segments())
    assert ends == [(0.0, 5.0), (3.0, 5.0)]
    assert axis.get_yscale() == "log" and 1 < axis.get_ylim()[0] < 2
    note = "95 % interval of the mean over seeds; at the bottom edge it includes 0"
    assert note in [text.get_text() for text in figure.legends[0].get_texts()]
    assert note not in [text.get_text() for text in errors_figure(sweep, rows[1:]).legends[0].get_texts()]


def test_axes_are_logarithmic_where_values_are_spread_and_words_stand_side_by_side() -> None:
    spread = scale_of({"0.001": 0.001, "0.1": 0.1})
    assert spread.is_log and spread.positions == pytest.approx({"0.001": -3, "0.1": -1})
    assert not scale_of({"1": 1, "5": 5}).is_log
    assert scale_of({"relu": "relu", "tanh": "tanh"}).positions == {"relu": 0, "tanh": 1}
    many = scale_of({str(value): value for value in range(0, 100, 3)})
    assert list(many.ticks().values()) == ["0", "20", "40", "60", "80"]


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _ended_once(directory: Path, num_trials: int) -> Iterator[Path]:
    """Checks that each trial of a sweep has ended and that no outer step of it is in its log twice; their runs."""
    sweep = read_sweep(directory)
    for row in read_rows(sweep, open_store(sweep, os.environ.get("MAML_SWEEP_STORAGE"))):
        assert row.state == "complete"
        steps = [json.loads(line)["step"] for line in (row.run / "metrics.jsonl").read_text().splitlines()]
        assert steps == sorted(steps) and row.error == pytest.approx(last_error(row.run))
        yield row.run
        num_trials -= 1
    assert num_trials == 0


def test_the_commands_of_the_page_run_and_the_array_script_has_ten_lines(cli: Cli) -> None:
    page = (ROOT / "maml_cli" / "sweeps" / "README.md").read_text()
    commands = [line.removeprefix("$ maml ") for line in page.splitlines() if line.startswith("$ maml ")]
    scripts = re.findall(r"```bash\n(.*?)```", page, flags=re.S)
    assert len(scripts[0].splitlines()) == 10
    commands += [script.replace("\\\n", "").splitlines()[-1].removeprefix("maml ") for script in scripts]
    cli("presets", "copy", "smoke", "mine.yaml")
    for number, command in enumerate(commands):
        words = shlex.split(command)
        settings = SMOKE[2:] if words[1] != "show" else []
        if number == len(commands) - 1:
            words[words.index("--out") + 1] = f"other-{number}"
        assert cli(*words, *settings).code == 0, command


def fork(function: Any) -> int:
    """A process that calls `function`, a copy of this one, in which PyTorch is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of PyTorch, none of which holds a lock here
        process = os.fork()
    if process == 0:
        code = 1
        try:
            code = function()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return process


def test_three_workers_of_which_one_is_killed_end_each_trial_once(tmp_path: Path) -> None:
    settings = ["outer.steps=200", "run.checkpoint_every=10", "run.eval_every=100", "run.log_every=50"]
    sweep = _tiny(str(tmp_path / "forks"), ["inner.steps=1,2,3", "inner.alpha.init=0.003,0.01"], *settings)
    open_sweep(sweep)
    processes = [fork(lambda: work(sweep, open_store(sweep))) for _ in range(3)]
    wait_until(lambda: any(sweep.directory.glob("*/checkpoints/step-00000050.pt")))
    os.kill(processes[0], signal.SIGKILL)
    assert [os.waitpid(process, 0)[1] for process in processes] == [signal.SIGKILL, 0, 0]
    assert len({*_ended_once(sweep.directory, 6)}) == 6
    ended = [trial for trial in open_store(sweep).study.get_trials() if trial.state == TrialState.COMPLETE]
    assert sorted(trial.user_attrs["slot"] for trial in ended) == [1, 2, 3, 4, 5, 6]


@pytest.mark.skipif(not FULL, reason="three processes that import PyTorch; with MAML_FULL_TESTS=1")
def test_jobs_are_processes_of_which_one_may_be_killed(tmp_path: Path) -> None:
    settings = [word for setting in ["outer.steps=400", "run.checkpoint_every=20"] for word in ("--set", setting)]
    command = [sys.executable, "-m", "maml_cli", "sweep", *SMOKE, *settings, *GRID, "--jobs", "2", "--out", "jobs"]
    with open(tmp_path / "messages", "w") as messages:
        process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=messages)
        wait_until(lambda: any(tmp_path.glob("jobs/*/last.json")) or process.poll() is not None)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(workers[0]), signal.SIGKILL)
        assert process.wait(timeout=120) == 0
    assert len({*_ended_once(tmp_path / "jobs", 4)}) == 4
    lines = (tmp_path / "messages").read_text().splitlines()
    begins = [line.split(" (")[0] for line in lines if line.endswith("begins")]
    assert len(begins) <= 5 and len({*begins}) == 4  # that of the worker that died begins again
