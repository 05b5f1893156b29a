"""The published results: made by one command that can resume, and the same as `maml eval` of the published runs."""

import json
import math
import os
import queue
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from maml_cli.config import load_config, presets
from maml_cli.dev import results, results_evaluation, results_plan, results_training
from maml_cli.dev.json_document import from_plain, to_plain, write_document
from maml_cli.dev.results_cases import SECOND_SEED, Case, banks
from maml_cli.dev.results_document import PublishedRow, Results, RunResult, StepErrors, read_results, write_results
from maml_cli.dev.results_evaluation import (
    Learner,
    last_step,
    num_learned_values,
    open_learner,
    store_errors,
    stored_errors,
)
from maml_cli.dev.results_page import results_page
from maml_cli.dev.results_plan import GOALS, METHODS, Goal, ResultRow
from maml_cli.dev.results_tables import goal_table, is_met, method_table
from maml_cli.dev.results_training import Job, end_with_parent, run_jobs, training_seconds
from maml_cli.errors import CheckpointError, ConfigError, FileError
from maml_cli.evaluation import PointErrors, summarise_tasks
from maml_cli.experiment import build_experiment
from maml_cli.runs import open_checkpoint, read_lines
from maml_cli.runs.published import PUBLISHED
from maml_cli.tasks import make_generator
from maml_cli.training import restore_state
from tests.conformance import FULL
from tests.conftest import Cli

ROOT = Path(__file__).parent.parent
COMMITTED = read_results(ROOT / PUBLISHED / "results.json")
TINY = ["outer.steps=6", "run.eval_tasks=3", "run.log_every=2", "run.checkpoint_every=3"]
ROWS = {row.name: row for row in results_plan.results_plan()}


def test_every_row_of_the_plan_has_a_name_of_its_own_and_steps_that_its_config_can_take() -> None:
    assert len(ROWS) == len(results_plan.results_plan())
    for row in ROWS.values():
        config = load_config(row.preset, row.overrides).config
        assert config.tasks.num_support == row.shots
        assert {row.shots} <= {case.shots for case in row.cases} and len({*row.cases}) == len(row.cases)
        inner = config.inner
        assert not inner.has_per_step_params or max(row.steps) <= inner.steps or inner.alpha.after_last_step
    with_goals_of_its_own = {"alpaca-10shot"}  # intervals on tasks with noise
    planned = {row.preset for row in ROWS.values()} | with_goals_of_its_own
    assert planned >= {name for name in presets.names() if "shot" in name or name.startswith("ridge-mixture")}


def test_the_plan_has_the_goals_of_the_project_on_five_seeds() -> None:
    """At the trained inner steps; G8 at twice as many, and G1 at ten."""
    rows = [row for row in ROWS.values() if row.goals]
    bounds = {(goal.label, goal.shots, row.preset): goal.bound for row in rows for goal in row.goals}
    of_kinds = {
        "G2": ("best-1step", 0.29, 0.145),
        "G3": ("best", 0.004, 0.0002),
        "G4g": ("best-frequency", 0.06, 0.006),
    }
    of_kinds |= {"G4h": ("ridge-frequency", 0.04, 0.002), "G6a": ("ridge", 0.0045, 0.0005)}
    of_kinds |= {"G6b": ("ridge-body", 0.0015, 0.0001)}
    expected = {(label, 5, f"{kind}-5shot"): bound for label, (kind, bound, _) in of_kinds.items()}
    expected |= {(label, 10, f"{kind}-10shot"): bound for label, (kind, _, bound) in of_kinds.items()}
    expected |= {("G1", 5, "finn-10shot-clip"): 0.35, ("G1", 10, "finn-10shot-clip"): 0.15}
    expected |= {("G1, no clip", 5, "finn-10shot"): 0.35, ("G1, no clip", 10, "finn-10shot"): 0.15}
    expected |= {("G7", 5, f"ridge-mixture-{modes}modes"): bound for modes, bound in ((2, 0.34), (3, 0.44), (5, 0.87))}
    in_g8 = [f"{of_kinds[label][0]}-{shots}shot" for label in ("G2", "G3", "G4g", "G4h", "G6b") for shots in (5, 10)]
    expected |= {("G8", ROWS[name].shots, name): 1.2 for name in in_g8}
    assert bounds == expected
    for row in rows:
        trained = load_config(row.preset).config.inner.steps
        for goal in row.goals:
            assert goal.step == {"G1": 10, "G8": 2 * trained}.get(goal.label[:2], trained)
            assert goal.relative_to == (trained if goal.label == "G8" else None)
        assert row.seeds == (0, 1, 2, 3, 4) and len(row.cases) >= 2
        assert row.num_committed == (1 if row.name.startswith("ridge-mixture") else 5)


def test_other_k_are_evaluated_and_mixtures_by_their_protocol() -> None:
    shots = {name: [case.shots for case in ROWS[name].cases if case.kind == "other K"] for name in ROWS}
    assert shots["best-5shot"] == [4, 6, 10, 20] and shots["best-10shot"] == [5, 20]
    assert {(case.points, case.noisy_targets) for case in ROWS["ridge-mixture-3modes"].cases} == {("query", True)}


def test_learned_values_are_counted_as_on_paper() -> None:
    """1-40-40-1 has 40 + 40, 1600 + 40 and 40 + 1 parameters. For each of five steps, best-5shot has an alpha for each,
    and the factors of weights, 1 + 1600, 2 * 1600 and 1600 + 1, and of biases, 1600, 1600 and 1."""
    params = 40 + 40 + 1600 + 40 + 40 + 1
    factors = (1 + 1600) + 2 * 1600 + (1600 + 1) + 1600 + 1600 + 1
    expected = {
        "finn-10shot": 1_761,
        "best-5shot": 58_581,
        "best-1step-5shot": 2 * params + factors,
        "anil-10shot": params,
    }
    assert params == 1_761 and params + 5 * (params + factors) == 58_581
    for name, count in expected.items():
        assert num_learned_values(build_experiment(load_config(name).config)) == count, name


def test_no_two_streams_of_training_and_test_tasks_start_alike() -> None:
    """torch seeds its generator with the last 32 bits alone."""
    trained = [(seed, purpose) for seed in range(5) for purpose in ("tasks", "noise", "init", "validation")]
    streams = [*trained, *((seed, purpose) for seed in (0, SECOND_SEED) for purpose in ("test", "test-grid-noise"))]
    seeds = {make_generator(*stream).initial_seed() % 2**32 for stream in streams}
    assert len(seeds) == len(streams)
    assert [case.seed for case in banks(5)] == [0, SECOND_SEED]
    assert [case.num_tasks for case in banks(5)] == [10_000, 100_000]


class Made(NamedTuple):
    """Results of five seeds of best-1step-5shot and of the quickstart, made by `make results`."""

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
    assert {entry.row.name: len(entry.runs) for entry in written.entries} == {"best-1step-5shot": 5, "quickstart": 1}
    entry = written.entries[0]
    assert [run.seed for run in entry.runs] == [0, 1, 2, 3, 4] and {run.outer_steps for run in entry.runs} == {6}
    assert entry.row.overrides == tuple(TINY) and {case.num_tasks for case in entry.row.cases} == {6}
    assert all([len(steps) for steps in run.errors.values()] == [3, 3] for run in entry.runs)  # up to twice the trained
    page = (made.out / "RESULTS.md").read_text()
    assert "bank of 6 (seed 4711)" in page and "| G2 | `best-1step-5shot` `outer.steps=6`" in page
    assert "(results-5shot.png)" in page and "(results-10shot.png)" not in page
    assert "## After every inner step" in page and "## Ablations" not in page and "## Outside" not in page
    figures = {"quickstart-fit.png", "quickstart-steps.png", "results-5shot.png"}
    assert {file.name for file in made.out.glob("*.png")} == figures
    folders = {file.name for file in made.out.iterdir() if file.is_dir()}
    assert folders == {"best-1step-5shot", *(f"best-1step-5shot-seed{seed}" for seed in range(1, 5))}


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


def test_a_finished_run_is_neither_trained_nor_evaluated_again(made: Made) -> None:
    """In a process of its own, with the same result; an evaluation whose file is cut short is repeated."""
    checkpoints = {file: file.stat().st_mtime_ns for file in made.runs.rglob("*.pt")}
    first, second = (made.runs / "evaluations" / "best-1step-5shot-seed1" / f"{case.name}.json" for case in banks(5))
    second.write_text(second.read_text()[:-100])
    time = first.stat().st_mtime_ns
    entry = read_results(made.out / "results.json").entries[0]
    messages: list[str] = []
    jobs = [Job(entry.row._replace(seeds=(1,)), 1, made.runs)]
    assert run_jobs(jobs, processes=1, notify=messages.append) == {entry.row.name: [entry.runs[1]]}
    assert [message.partition(",")[0] for message in messages] == [f"1 of 1: {jobs[0].run}"]
    assert run_jobs(jobs, processes=1, notify=messages.append) == {entry.row.name: [entry.runs[1]]}
    assert messages[1:] == ["1 of 1 are stored in full"]
    assert {file: file.stat().st_mtime_ns for file in made.runs.rglob("*.pt")} == checkpoints
    assert first.stat().st_mtime_ns == time and json.loads(second.read_text())["case"]["seed"] == SECOND_SEED


def test_a_run_of_maml_train_is_only_evaluated(made: Made, cli: Cli, in_this_process: None) -> None:
    """With the config of the row, in its run directory."""
    changes = [argument for change in [*TINY, "run.seed=3"] for argument in ("--set", change)]
    cli("train", "--config", "best-1step-5shot", "--out", "runs/best-1step-5shot-seed3", *changes)
    checkpoints = {file: file.stat().st_mtime_ns for file in Path("runs").rglob("*.pt")}
    entry = read_results(made.out / "results.json").entries[0]
    job = Job(entry.row._replace(seeds=(3,)), 3, Path("runs"))
    (run,) = run_jobs([job], processes=1, notify=print)[entry.row.name]
    assert run.errors == entry.runs[3].errors and run.seconds > 0 and run.engine == entry.runs[3].engine
    assert {file: file.stat().st_mtime_ns for file in Path("runs").rglob("*.pt")} == checkpoints


def test_stored_errors_are_of_one_checkpoint_case_and_number_of_steps(tmp_path: Path) -> None:
    row, case = ROWS["best-1step-5shot"], Case("x", "other K", 4, num_tasks=3)
    evaluated: list[tuple[str, Case, int]] = []

    def learner(digest: str) -> Learner:
        def errors(case: Case, last_step: int) -> list[PointErrors]:
            evaluated.append((digest, case, last_step))
            tasks = torch.full((1, 3, 2), float(len(evaluated)))
            points = summarise_tasks(
                dict.fromkeys(PointErrors._fields, tasks), limits=dict.fromkeys(PointErrors._fields, (9.0, 9.0))
            )
            return [points] * (last_step + 1)

        return Learner(digest, errors, lambda steps: steps)

    def means(digest: str, case: Case, row: ResultRow = row) -> list[float]:
        of_digest, file = learner(digest), tmp_path / "x.json"
        steps = store_errors(of_digest, case, last_step(of_digest, row, case, 1), file)
        assert stored_errors(of_digest, case, len(steps) - 1, file) == steps
        return [errors.mean for errors in steps]

    assert means("a", case) == [1, 1] and means("a", case) == [1, 1]
    assert means("b", case) == [2, 2]  # another checkpoint
    assert means("b", case._replace(seed=1)) == [3, 3]  # other tasks
    assert means("b", case._replace(seed=1), row._replace(steps=(1, 4))) == [4] * 5  # more inner steps
    assert means("b", case._replace(seed=1)) == [4, 4]  # fewer are among them
    bank = case._replace(kind="second bank")
    assert means("b", bank) == [5, 5, 5]  # to twice the trained step
    other = case._replace(seed=1)
    assert evaluated == [("a", case, 1), ("b", case, 1), ("b", other, 1), ("b", other, 4), ("b", bank, 2)]


def test_a_kill_between_evaluations_costs_no_more_than_one(
    made: Made, monkeypatch: pytest.MonkeyPatch, in_this_process: None
) -> None:
    entry = read_results(made.out / "results.json").entries[0]
    job = Job(entry.row._replace(seeds=(2,)), 2, Path("runs"))
    files: list[str] = []

    def write(file: Path, document: object) -> None:
        files.append(file.name)
        if len(files) == 2:
            raise KeyboardInterrupt
        write_document(file, document)

    monkeypatch.setattr(results_evaluation, "write_document", write)
    with pytest.raises(KeyboardInterrupt):
        run_jobs([job], processes=1, notify=print)
    assert run_jobs([job], processes=1, notify=print)[entry.row.name][0].errors == entry.runs[2].errors
    first, second = (f"{case.name}.json" for case in banks(5))
    assert files == [first, second, second]


def test_a_process_ends_when_the_one_that_started_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, codes = threading.Event(), queue.Queue[int]()
    monkeypatch.setattr(results_training, "parent_process", lambda: SimpleNamespace(join=ended.wait))
    monkeypatch.setattr(os, "_exit", codes.put)
    end_with_parent()
    assert codes.empty()
    ended.set()
    assert codes.get(timeout=10) == 1


def test_a_training_that_diverges_is_a_result(in_this_process: None) -> None:
    """A learning rate of 1e30 makes the second loss infinite."""
    row = ROWS["best-1step-5shot"]._replace(seeds=(0,), overrides=(*TINY, "outer.lr=1e30", "outer.clip_task_norm=null"))
    job = Job(row, 0, Path("runs"))
    runs = run_jobs([job], processes=1, notify=print)
    (run,) = runs[row.name]
    assert run.diverged_step in (2, 3) and run.errors == {} and run.num_values == 13_125
    assert run_jobs([job], processes=1, notify=print) == runs
    (entry,) = results.published_rows([row], runs)
    assert "| **overflow** | overflow |" in goal_table(Results([entry]))


def test_published_errors_are_those_of_maml_eval(made: Made, cli: Cli) -> None:
    """Grid errors, squared, on the test tasks of both seeds."""
    for run in read_results(made.out / "results.json").entries[0].runs[:2]:
        for case in banks(5):
            arguments = ["--checkpoint", made.runs / f"best-1step-5shot-seed{run.seed}", "--seed", case.seed]
            document = cli("eval", *arguments, "--tasks", 6, "--json").out
            steps = json.loads(document)["results"][0]["steps"]
            for errors, step in zip(run.errors[case.name], steps, strict=False):
                mse = step["grid"]["mse"]
                assert errors[:5] == pytest.approx([mse[name] for name in errors._fields[:5]], rel=1e-9)
                assert errors.worst_1_percent_share is mse["worst_1_percent_share"] is None  # of six tasks


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
    assert [entry.row.name for entry in read_results(out / "results.json").entries] == ["joint-5shot", "oracle-5shot"]
    messages = capsys.readouterr().err
    assert "runs/cavia-5shot-seed0 failed: " in messages
    assert "failed; previous results, if any, are unchanged: cavia-5shot" in messages


def test_new_rows_replace_previous_ones_in_the_order_of_the_plan() -> None:
    """A row that the plan does not have any more is dropped."""
    previous = [_entry([1.0], row=ROW._replace(name=name)) for name in ("joint-5shot", "retired", "finn-10shot")]
    made = [_entry([2.0], row=ROW._replace(name=name)) for name in ("quickstart", "joint-5shot")]
    merged = results.merge_rows(previous, made)
    assert [entry.row.name for entry in merged] == ["finn-10shot", "joint-5shot", "quickstart"]
    assert [entry.runs[0].at(CASE, 1).mean for entry in merged] == [1.0, 2.0, 2.0]


def test_only_takes_the_row_of_a_name_or_those_that_begin_with_it() -> None:
    names = [row.name for row in results.rows_to_make(["finn-10shot", "joint-5", "lstm"], [], 2)]
    assert names == ["finn-10shot", "joint-5shot", "lstm-5shot", "lstm-10shot"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": ["nothing"]}, "--only nothing: no row begins with that; the rows are finn-10shot-clip, "),
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


NUMBER = st.floats(min_value=0, allow_nan=False)
ERRORS = st.builds(StepErrors, *[NUMBER] * 4, *[st.none() | st.floats(0, 1)] * 2)


@settings(max_examples=30)
@given(st.lists(ERRORS), st.one_of(st.none(), st.text()), st.lists(st.text()))
def test_a_row_is_the_same_after_json(steps: list[StepErrors], after: str | None, overrides: list[str]) -> None:
    """Infinite errors are null in between; None stays None."""
    entry = _entry([1.0])
    run = entry.runs[0]._replace(errors={"a": steps})
    entry = PublishedRow(entry.row._replace(overrides=tuple(overrides)), after, [run])
    text = json.dumps(to_plain(entry), allow_nan=False)
    assert from_plain(json.loads(text), PublishedRow) == entry
    assert text.count("null") >= sum(map(math.isinf, [value for errors in steps for value in errors[:4]]))


def test_the_committed_results_are_as_they_would_be_written(tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", COMMITTED)
    assert (tmp_path / "results.json").read_bytes() == (ROOT / PUBLISHED / "results.json").read_bytes()


def test_the_seconds_of_a_resumed_training_are_summed_over_its_resumptions(tmp_path: Path) -> None:
    """The clock starts anew at 0.5 and at 0.25."""
    lines = [1.0, 2.0, 3.5, 0.5, 1.5, 0.25]
    (tmp_path / "timing.jsonl").write_text("".join(f'{{"step": 1, "seconds": {value}}}\n' for value in lines))
    assert training_seconds(tmp_path) == pytest.approx(3.5 + 1.5 + 0.25)
    (tmp_path / "timing.jsonl").write_text("")  # of a training that diverged at once
    assert isinstance(training_seconds(tmp_path), float)


CASE = banks(5)[0]
ROW = ResultRow(
    "x",
    "x",
    5,
    (2,),
    (CASE,),
    GOALS,
    "X",
    ("a=1",),
    goals=(Goal("G3", 5, 2, 1.0, published="y"), Goal("G8", 5, 4, 1.2, 2)),
)


def _entry(
    means: list[float], *, row: ResultRow = ROW, growth: float = 1.1, after: str | None = "hold"
) -> PublishedRow:
    """Errors to inner step 2, and `growth` times as large after two more."""
    runs = []
    for seed, mean in enumerate(means):
        errors = [StepErrors(factor * mean, 0.1, mean / 2, 9.0, 3.0, 0.25) for factor in (1.0, growth)]
        steps = [errors[0]] * 3 + [errors[1]] * 2
        runs.append(RunResult(seed, 5, "reference", 90.0, None, 1_761, {case.name: steps for case in row.cases}))
    return PublishedRow(row, after, runs)


@pytest.mark.parametrize(
    ("means", "growth", "after", "g3", "g8"),
    [
        ([0.9, 1.0, 1.1], 1.1, "hold", True, True),
        ([0.9, 1.0, 1.11], 1.2, None, False, True),  # the mean over the bound
        ([0.5, 0.5, 1.21], 1.1, "hold", False, True),  # one seed worse than the bound by more than a fifth
        ([0.9, 1.0, 1.1], 1.21, "hold", True, False),  # grown by more than a fifth
        ([0.9, 1.0, 1.1], 1.0, "stop", True, False),  # steps that do nothing
        ([0.9, math.inf], 1.0, "hold", False, False),
    ],
)
def test_a_goal_is_met_on_the_mean_and_by_every_seed(
    means: list[float], growth: float, after: str | None, g3: bool, g8: bool
) -> None:
    entry = _entry(means, growth=growth, after=after)
    assert [is_met(entry, goal) for goal in ROW.goals] == [g3, g8]
    rows = [line.split(" | ") for line in goal_table(Results([entry])).splitlines()[2:]]
    assert [row[0] for row in rows] == ["| G3", "| G8"] and [row[2:4] for row in rows] == [["5", "2"], ["5", "4"]]
    assert [row[8] for row in rows] == ["yes" if met else "**no**" for met in (g3, g8)]
    assert rows[0][9:] == ["1,761", "y |"]


def test_a_goal_is_judged_on_the_second_bank_where_there_is_one() -> None:
    row = ROW._replace(cases=banks(5))
    entry = _entry([1.0], row=row)
    second = [errors._replace(mean=2.0) for errors in entry.runs[0].errors[CASE.name]]
    errors = entry.runs[0].errors | {banks(5)[1].name: second}
    entry = entry._replace(runs=[entry.runs[0]._replace(errors=errors)])
    assert not is_met(entry, ROW.goals[0])
    assert "| **2** | 2 | 1 | ≤ 1 | **no** |" in goal_table(Results([entry]))


def test_a_method_names_the_config_of_each_k_and_an_overflow_has_its_median() -> None:
    five = _entry([1.0], row=ROW._replace(group=METHODS, published="0.5"))
    row = ROW._replace(group=METHODS, shots=10, cases=banks(10)[:1], overrides=())
    steps = [StepErrors(math.inf, math.inf, 0.25, math.inf)] * 3
    ten = _entry([1.0], row=row)
    ten = ten._replace(runs=[ten.runs[0]._replace(errors={row.cases[0].name: steps}, seconds=59.4)])
    assert method_table(Results([five, ten])).splitlines()[2:] == [
        "| X | K = 5: `x` `a=1`; K = 10: `x` | 2: 1 ± 0.1 | 2: overflow (median 0.25) | 1,761 | 5 "
        "| 1.5 min, reference; 59 s, reference | 0.5; - |"
    ]


def test_the_page_shows_other_tasks_ablations_and_engines(tmp_path: Path) -> None:
    """Every section of one page, from made-up errors: 1 inside, and a training that diverged."""
    entries = []
    for row in results_plan.results_plan():
        if row.name in ("best-5shot", "best-frequency-10shot") or row.group in ("ablations", "engines"):
            entry = _entry([0.001, 0.003], row=row, growth=1.0)
            steps = [StepErrors(run_step / 1000, 0.1, 0.1, 0.1, 0.1, 0.5) for run_step in range(11)]
            runs = [run._replace(errors={case.name: steps for case in row.cases}) for run in entry.runs]
            entries.append(entry._replace(runs=runs if len(row.seeds) > 1 else runs[:1]))
    lost = next(i for i, entry in enumerate(entries) if entry.row.name == "ablation-any-clipping")
    entries[lost] = entries[lost]._replace(runs=[entries[lost].runs[0]._replace(diverged_step=1_234, errors={})])
    write_results(tmp_path / "results.json", Results(entries))
    page = results_page(tmp_path)
    assert "| `best-5shot` | 5 | 0 | 0.001 | 0.002 | 0.003 | 0.004 | **0.005** | 0.006 |" in page
    assert "| `best-5shot` | 5 | 0.005 | **0.005** | 0.005 | 0.005 | 0.005 |" in page  # K = 4, 5, 6, 10, 20
    assert "| amplitude 5 to 10 | phase π to 2π |" in page
    assert "| `best-frequency-10shot` | 10 | 5 | 0.005 ± 0.1, 0.005 ± 0.1 |" in page
    assert "| complete | 0.005 ± 0.1 | 0.1 | 0.1 | 0.1 | 50% | 1,761 |" in page
    assert "| without any clipping | diverged at outer step 1,234 |" in page
    assert page.count("| largest / smallest |  |  | 1 |  |") == 2
    assert "The errors of G3 and G4g are the lowest by gradient steps on this network that we know of." in page


def test_committed_runs_are_trained_to_the_end_with_the_config_of_their_row() -> None:
    for entry in COMMITTED.entries:
        for run in entry.runs[: entry.row.num_committed]:
            checkpoint = open_checkpoint(results.published_run(entry.row.name, run.seed, ROOT / PUBLISHED))
            config, row = checkpoint.config, entry.row
            assert checkpoint.step == config.outer.steps == run.outer_steps
            assert config == load_config(row.preset, [*row.overrides, f"run.seed={run.seed}"]).config, row.name


def _committed_rows() -> list[Any]:
    """The rows with a committed run; two that take a quarter of a minute each only with MAML_FULL_TESTS."""
    names = [entry.row.name for entry in COMMITTED.entries if entry.row.num_committed]
    large = pytest.mark.skipif(not FULL, reason="a large network; with MAML_FULL_TESTS=1")
    is_large = {"ridge-mixture-3modes", "ridge-mixture-5modes"}
    return [pytest.param(name, marks=[large] if name in is_large else []) for name in names]


@pytest.mark.usefixtures("optimised_kernels")
@pytest.mark.parametrize("name", _committed_rows())
def test_a_committed_run_gives_the_published_error(name: str) -> None:
    """In its smallest evaluation, to 2 % for the sake of other processors: tasks close to divergence magnify the last
    bit."""
    (entry,) = (entry for entry in COMMITTED.entries if entry.row.name == name)
    case, step = min(entry.row.cases, key=lambda case: case.num_tasks), entry.row.steps[0]
    published, learner = entry.runs[0].at(case, step), open_learner(results.published_run(name, 0, ROOT / PUBLISHED))
    errors = learner.errors(case, step)[step]
    mse = (errors.query if case.points == "query" else errors.grid).mse
    assert mse[:3] == pytest.approx(published[:3], rel=0.02)
