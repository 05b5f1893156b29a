"""The published results: made by one command that can resume, and the same as `maml eval` of the published runs."""

import json
import math
import re
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from maml_cli.config import load_config, presets
from maml_cli.dev import results, results_training
from maml_cli.dev.json_document import from_plain, to_plain
from maml_cli.dev.results_document import (
    PublishedRow,
    Results,
    RunResult,
    ShotsResult,
    StepErrors,
    read_results,
    write_results,
)
from maml_cli.dev.results_plan import Goal, results_plan
from maml_cli.dev.results_tables import goal_table, method_table
from maml_cli.dev.results_training import Job, grid_errors, plan_jobs, run_jobs, training_seconds
from maml_cli.errors import CheckpointError, ConfigError, FileError
from maml_cli.experiment import build_experiment
from maml_cli.runs import open_checkpoint, read_lines
from maml_cli.runs.published import PUBLISHED
from maml_cli.training import restore_state
from tests.conftest import Cli

ROOT = Path(__file__).parent.parent
COMMITTED = read_results(ROOT / PUBLISHED / "results.json")
TINY = ["outer.steps=6", "run.eval_tasks=3", "run.log_every=2", "run.checkpoint_every=3"]
ROWS = {row.name: row for row in results_plan()}


def test_every_row_of_the_plan_has_a_name_of_its_own_and_steps_that_its_config_can_take() -> None:
    assert len(ROWS) == len(results_plan())
    for row in ROWS.values():
        config = load_config(row.preset, row.overrides).config
        if row.label[:2] != "G1":
            assert (config.tasks.num_support,) == row.shots
        inner = config.inner
        assert not inner.has_per_step_params or max(row.steps) <= inner.steps or inner.alpha.after_last_step
    assert {row.preset for row in ROWS.values()} >= {name for name in presets.names() if "shot" in name}


def test_the_plan_has_the_goals_of_the_project_on_three_seeds() -> None:
    bounds = {
        (row.label.removesuffix(", noise"), goal.shots, goal.step): goal.bound
        for row in results_plan()
        for goal in row.goals
    }
    assert bounds == {
        ("G1", 5, 1): 0.70,
        ("G1", 5, 10): 0.35,
        ("G1", 10, 1): 0.45,
        ("G1", 10, 10): 0.20,
        ("G2", 5, 1): 0.34,
        ("G2", 10, 1): 0.18,
        ("G3", 5, 5): 0.008,
        ("G3", 10, 5): 0.0015,
        ("G4", 5, 5): 0.08,
        ("G4", 10, 5): 0.015,
    }
    assert all(row.seeds == (0, 1, 2) for row in results_plan() if row.label)


class Made(NamedTuple):
    """Results of three seeds of best-1step-5shot and of the quickstart, made by `make results`."""

    runs: Path
    out: Path


def _run_at_once(*_: object, **__: object) -> SimpleNamespace:
    """An executor that runs each job when it is submitted: a process of its own takes seconds to start."""

    def submit(function: Callable[[Job], RunResult], job: Job) -> Future[RunResult]:
        future: Future[RunResult] = Future()
        try:
            future.set_result(function(job))
        except Exception as error:
            future.set_exception(error)
        return future

    return SimpleNamespace(submit=submit, shutdown=lambda cancel_futures: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("results")
    made = Made(folder / "runs", folder / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results_training, "ProcessPoolExecutor", _run_at_once)
        results.main(jobs=2, only=["best-1step-5", "quick"], overrides=TINY, tasks=6, runs=made.runs, out=made.out)
    return made


@pytest.fixture
def in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results_training, "ProcessPoolExecutor", _run_at_once)


def test_results_tables_figures_and_the_runs_behind_goals_are_written(made: Made) -> None:
    written = read_results(made.out / "results.json")
    assert {row.name: len(row.runs) for row in written.entries} == {"best-1step-5shot": 3, "quickstart": 1}
    row = written.entries[0]
    assert [run.seed for run in row.runs] == [0, 1, 2] and {run.outer_steps for run in row.runs} == {6}
    assert row.overrides == tuple(TINY) and row.num_tasks == 6
    page = (made.out / "RESULTS.md").read_text()
    assert "over 6 test tasks" in page and "| G2 | `best-1step-5shot` `outer.steps=6`" in page
    assert "(results-5shot.png)" in page and "(results-10shot.png)" not in page
    figures = {"quickstart-fit.png", "quickstart-steps.png", "results-5shot.png"}
    assert {file.name for file in made.out.glob("*.png")} == figures
    folders = {file.name for file in made.out.iterdir() if file.is_dir()}
    assert folders == {"best-1step-5shot", "best-1step-5shot-seed1", "best-1step-5shot-seed2"}


def test_published_checkpoints_are_for_evaluation_only(made: Made) -> None:
    published = open_checkpoint(made.out / "best-1step-5shot-seed2")
    assert published.step == 6 and published.config.run.seed == 2
    trained = open_checkpoint(made.runs / "best-1step-5shot-seed2").contents
    assert trained.keys() - published.contents.keys() == {"optimizers", "generators", "noise_generators"}
    with pytest.raises(CheckpointError, match="no optimiser state"):
        restore_state(published.config, build_experiment(published.config), published.contents)
    metrics = [
        folder / "metrics.jsonl" for folder in (made.out / "best-1step-5shot", made.runs / "best-1step-5shot-seed0")
    ]
    assert read_lines(metrics[0]) == read_lines(metrics[1]) != []


def test_a_finished_training_is_evaluated_again_but_not_repeated(made: Made) -> None:
    """In a process of its own, with the same result."""
    checkpoints = {file: file.stat().st_mtime_ns for file in made.runs.rglob("*.pt")}
    row = read_results(made.out / "results.json").entries[0]
    planned = ROWS["best-1step-5shot"]._replace(seeds=(1,))
    jobs = plan_jobs([planned], runs=made.runs, overrides=TINY, num_tasks=6)
    messages: list[str] = []
    assert run_jobs(jobs, processes=1, notify=messages.append) == {planned.name: [row.runs[1]]}
    assert [message.partition(",")[0] for message in messages] == [f"1 of 1: {jobs[0].run}"]
    assert {file: file.stat().st_mtime_ns for file in made.runs.rglob("*.pt")} == checkpoints


def test_published_errors_are_those_of_maml_eval(made: Made, cli: Cli) -> None:
    """Grid errors, squared, on the test tasks of seed 0."""
    for run in read_results(made.out / "results.json").entries[0].runs:
        document = cli(
            "eval", "--checkpoint", made.runs / f"best-1step-5shot-seed{run.seed}", "--tasks", 6, "--json"
        ).out
        steps = json.loads(document)["results"][0]["steps"]
        assert len(run.results[0].steps) == 2
        for errors, step in zip(run.results[0].steps, steps, strict=False):
            mse = step["grid"]["mse"]
            expected = {name: mse[name] for name in ("mean", "ci95", "median")} | {"max": mse["worst"]}
            assert errors._asdict() == pytest.approx(expected, rel=1e-9)
            assert errors.max >= errors.mean


def test_a_training_that_fails_is_reported_and_the_others_are_published(
    in_this_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A foreign file in the run directory of the first row; a row made before stays, in the order of the plan."""
    folder, runs, out = Path("runs/cavia-5shot-seed0"), Path("runs"), Path("out")
    results.main(jobs=1, only=["oracle-5"], overrides=TINY, tasks=4, runs=runs, out=out)
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(typer.Exit) as stop:
        results.main(jobs=1, only=["cavia-5", "joint-5"], overrides=TINY, tasks=4, runs=runs, out=out)
    assert stop.value.exit_code == 5
    assert [row.name for row in read_results(out / "results.json").entries] == ["joint-5shot", "oracle-5shot"]
    messages = capsys.readouterr().err
    assert "runs/cavia-5shot-seed0 failed: " in messages
    assert "failed; previous results, if any, are unchanged: cavia-5shot" in messages


def test_new_rows_replace_previous_ones_in_the_order_of_the_plan() -> None:
    """A row that the plan does not have any more is dropped."""
    old, new = (_row([mean], Goal(5, 1, 1.0)) for mean in (1.0, 2.0))
    previous = [old._replace(name=name) for name in ("joint-5shot", "retired", "finn-10shot")]
    made = [new._replace(name=name) for name in ("quickstart", "joint-5shot")]
    merged = results.merge_rows(previous, made)
    assert [row.name for row in merged] == ["finn-10shot", "joint-5shot", "quickstart"]
    assert [row.runs[0].errors(5, 1).mean for row in merged] == [1.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": ["nothing"]}, "--only nothing: no row begins with that; the rows are finn-10shot, "),
        ({"overrides": ["outer.steps=6"]}, "--set and --tasks do not give the published results"),
        ({"tasks": 20}, "--set and --tasks do not give the published results"),
        ({"overrides": ["outer.stepz=6"], "out": Path("out")}, "outer.stepz: unknown key; did you mean outer.steps?"),
    ],
)
def test_results_that_cannot_be_made_are_refused_before_any_training(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"jobs": 1, "runs": Path("runs")} | arguments
    with pytest.raises(ConfigError, match=re.escape(message)):
        results.main(**options)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "damaged",
    [
        "[",
        "[]",
        '{"schema_version": 2, "entries": []}',
        '{"schema_version": 1}',
        '{"schema_version": 1, "entries": [1]}',
    ],
)
def test_a_damaged_results_file_is_refused_before_any_training(
    damaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("results.json").write_text(damaged)
    with pytest.raises(
        FileError, match=r"results\.json: not a results\.json as this project writes it; fix or remove it"
    ):
        results.main(jobs=1, only=["quick"], overrides=TINY, tasks=4, runs=Path("runs"), out=Path())
    assert not Path("runs").exists()


ERRORS = st.builds(StepErrors, *[st.floats(min_value=0, allow_nan=False)] * 4)


@given(st.lists(ERRORS), st.one_of(st.none(), st.text()), st.lists(st.text()))
def test_a_row_is_the_same_after_json(steps: list[StepErrors], after: str | None, overrides: list[str]) -> None:
    """Infinite errors are null in between; None stays None."""
    runs = [RunResult(0, 5, "eager", 1.5, [ShotsResult(5, steps)])]
    goals = (Goal(5, 1, 0.25, "y"),)
    row = PublishedRow("a", "b", tuple(overrides), 3, "t", "", after, "", (1, 2), goals, runs)
    text = json.dumps(to_plain(row), allow_nan=False)
    assert from_plain(json.loads(text), PublishedRow) == row
    assert text.count("null") >= sum(map(math.isinf, sum(steps, ())))


def test_the_committed_results_are_as_they_would_be_written(tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", COMMITTED)
    assert (tmp_path / "results.json").read_bytes() == (ROOT / PUBLISHED / "results.json").read_bytes()


def test_the_seconds_of_a_resumed_training_are_summed_over_its_resumptions(tmp_path: Path) -> None:
    """The clock starts anew at 0.5 and at 0.25."""
    lines = [1.0, 2.0, 3.5, 0.5, 1.5, 0.25]
    (tmp_path / "timing.jsonl").write_text("".join(f'{{"step": 1, "seconds": {value}}}\n' for value in lines))
    assert training_seconds(tmp_path) == pytest.approx(3.5 + 1.5 + 0.25)


def _row(means: list[float], goal: Goal, *, worst: float = 1.0) -> PublishedRow:
    """Errors at the goal's step, and 1.4 times as large after twice as many."""
    runs = []
    for seed, mean in enumerate(means):
        trained, twice = (StepErrors(factor * mean, 0.1, factor * mean, worst) for factor in (1.0, 1.4))
        steps = [trained] * (goal.step + 1) + [twice] * goal.step
        runs.append(RunResult(seed, 5, "reference", 90.0, [ShotsResult(goal.shots, steps)]))
    return PublishedRow("x", "x", ("a=1",), 10, "X", "G3", "stop", "0.5", (1,), (goal,), runs)


@pytest.mark.parametrize(
    ("means", "worst", "g3", "g5"),
    [
        ([0.9, 1.0, 1.1], 99.0, "yes", "yes"),
        ([0.9, 1.0, 1.11], 99.0, "**no**", "yes"),  # the mean over the bound
        ([0.5, 0.5, 1.21], 99.0, "**no**", "yes"),  # one seed worse than the bound by more than a fifth
        ([0.9, 1.0, 1.1], 101.0, "yes", "**no**"),  # one task beyond 100 at twice the steps
    ],
)
def test_a_goal_is_met_on_the_mean_and_by_every_seed(means: list[float], worst: float, g3: str, g5: str) -> None:
    lines = goal_table(Results([_row(means, Goal(5, 2, 1.0, "y"), worst=worst)])).splitlines()
    rows = {line.split(" | ")[0]: line.split(" | ") for line in lines if line.startswith("| G")}
    assert rows["| G3"][7] == g3 and rows["| G5"][7] == g5
    assert rows["| G3"][1:4] == ["`x` `a=1`", "5", "2"] and rows["| G5"][2:4] == ["5", "4"]
    assert rows["| G3"][4] == f"**{sum(means) / 3:.3g}**" and rows["| G3"][8:] == ["1.5 min, reference", "y |"]


def test_the_error_after_twice_the_steps_may_grow_by_half() -> None:
    """From 1.0 to 1.4 with the goal above; to 1.6 it may not."""
    row = _row([1.0], Goal(5, 2, 1.0, "y"))
    (result,) = row.runs[0].results
    grown = ShotsResult(5, [*result.steps[:-1], result.steps[-1]._replace(mean=1.6)])
    table = goal_table(Results([row._replace(runs=[row.runs[0]._replace(results=[grown])])]))
    assert "| **1.6** | 1.6; worst task 1 |" in table and "no task above 100 | **no** |" in table


def test_a_method_names_the_config_of_each_k_and_an_overflow_has_its_median() -> None:
    five, ten = (_row([1.0], Goal(shots, 2, 1.0, "y"))._replace(label="") for shots in (5, 10))
    steps = [StepErrors(math.inf, math.inf, 0.25, math.inf)] * 2
    overflowed = ten.runs[0]._replace(results=[ShotsResult(10, steps)])
    lines = method_table(Results([five, ten._replace(overrides=(), published="", runs=[overflowed])])).splitlines()
    assert lines[2:] == [
        "| X | K = 5: `x` `a=1`; K = 10: `x` | 1: 1 ± 0.1 | 1: overflow (median 0.25) | 5 "
        "| 1.5 min, reference; 1.5 min, reference | 0.5; - |"
    ]


def test_committed_runs_are_trained_to_the_end_with_the_config_of_their_row() -> None:
    for row in COMMITTED.entries:
        for run in row.runs if row.label else []:
            checkpoint = open_checkpoint(results.published_run(row.name, run.seed, ROOT / PUBLISHED))
            config = checkpoint.config
            assert checkpoint.step == config.outer.steps == run.outer_steps
            assert config == load_config(row.preset, [*row.overrides, f"run.seed={run.seed}"]).config, row.name


@pytest.mark.parametrize("name", [row.name for row in COMMITTED.entries if row.label])
def test_a_committed_run_gives_the_published_error(name: str) -> None:
    """To 2 % for the sake of other processors: tasks close to divergence magnify the last bit."""
    (row,) = (row for row in COMMITTED.entries if row.name == name)
    shots, step = row.runs[0].results[-1].shots, row.goals[0].step
    published = row.runs[0].errors(shots, step)
    run = results.published_run(name, 0, ROOT / PUBLISHED)
    errors = grid_errors(run, shots=shots, steps=step, num_tasks=row.num_tasks)[step]
    assert errors[:3] == pytest.approx(published[:3], rel=0.02)
