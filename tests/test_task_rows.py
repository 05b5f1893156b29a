"""The error of each test task: as CSV, as rows of the API, and by kind of task in mixtures."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import maml_cli as maml
from maml_cli.config import Config
from maml_cli.errors import ConfigError, DataError
from maml_cli.evaluation import Protocol, learner_errors, open_run, sample_test_tasks
from maml_cli.tasks import make_family, make_generator
from tests.conftest import TINY_RUN, Cli

MIXTURE = """
tasks:
  family: mixture
  mixture: [{family: sine}, {family: line}, {family: line, parameters: {slope: 5}}]
model: {hidden: [6]}
outer: {steps: 2}
run: {eval_tasks: 2, engine: eager}
"""


@pytest.fixture
def mixture(cli: Cli) -> str:
    """A run on sinusoids, lines, and lines of slope 5."""
    Path("mix.yaml").write_text(MIXTURE)
    return cli("train", "-c", "mix.yaml", "-q").out.strip()


def _rows(file: str) -> list[dict[str, str]]:
    with open(file, newline="") as stream:
        return [*csv.DictReader(stream)]


def test_a_row_has_the_sinusoid_of_a_task_and_its_error_after_each_inner_step(cli: Cli, trained: str) -> None:
    """The error before adapting from amplitude * sin(x - phase) and the initial network; means are those of --json."""
    result = cli("eval", trained, "--tasks", 30, "--shots", "5,10", "--steps", 2, "--per-task", "t.csv", "--json")
    evaluations = json.loads(result.out)["results"]
    assert result.err.splitlines()[-1] == "errors of single tasks written to t.csv"
    rows = _rows("t.csv")
    errors = ["mse_step_0", "mse_step_1", "mse_step_2"]
    assert [*rows[0]] == ["task", "amplitude", "frequency", "phase", "offset", "shots", *errors]
    assert [(row["shots"], row["task"]) for row in rows] == [(k, str(i)) for k in ("5", "10") for i in range(30)]
    for evaluation in evaluations:
        of_shots = [row for row in rows if int(row["shots"]) == evaluation["shots"]]
        for step, name in enumerate(errors):
            mean = sum(float(row[name]) for row in of_shots) / 30
            assert mean == pytest.approx(evaluation["steps"][step]["grid"]["mse"]["mean"], rel=1e-5)
    run = open_run(Path(trained))
    x = torch.linspace(-5, 5, 100, dtype=torch.float64).reshape(100, 1)
    start = {key: value[0] for key, value in run.meta_params.params.items()}
    predicted = run.experiment.predict(start, x.float()).double()
    for row in rows[:5]:
        truth = float(row["amplitude"]) * torch.sin(x - float(row["phase"]))
        assert float(row["mse_step_0"]) == pytest.approx((predicted - truth).square().mean().item(), rel=1e-4)


def test_rows_of_several_seeds_are_means_over_them_and_those_of_l1_are_absolute_errors(cli: Cli) -> None:
    run = cli("train", "-c", "smoke", *TINY_RUN, "-q", "-s", "run.seeds=3", "-s", "inner.loss=l1").out.strip()
    opened = maml.load(run)
    rows = maml.evaluate(opened, tasks=6, steps=1, per_task=True).per_task()
    tasks = sample_test_tasks(opened.experiment.family, Protocol(num_tasks=6), 10)
    for step, errors in enumerate(learner_errors(opened.experiment, opened.meta_params, tasks, steps=1)):
        expected = errors["grid"][:, :, 1].double().mean(dim=0).tolist()
        assert [row[f"mae_step_{step}"] for row in rows] == pytest.approx(expected, rel=1e-6)


def test_rows_that_were_not_kept_are_refused(trained: str) -> None:
    result = maml.evaluate(maml.load(trained), tasks=3, steps=0)
    with pytest.raises(DataError, match="per_task: the errors of single tasks were not kept; give per_task=True"):
        result.per_task()
    assert "task_errors" not in result.to_dict()["results"][0]


def test_cells_of_parameters_that_a_kind_lacks_are_empty(cli: Cli, mixture: str) -> None:
    cli("eval", mixture, "--tasks", 60, "--steps", 0, "--per-task", "t.csv")
    of_kind: dict[str, set[str]] = {}
    for row in _rows("t.csv"):
        parameters = ("amplitude", "frequency", "phase", "offset", "slope", "intercept")
        of_kind.setdefault(row["kind"], set()).add(" ".join(name for name in parameters if row[name]))
        assert row["kind"] != "line 2" or float(row["slope"]) == 5
    lines = {"slope intercept"}
    assert of_kind == {"sine": {"amplitude frequency phase offset"}, "line 1": lines, "line 2": lines}


def test_columns_of_a_mixture_describe_the_functions_that_they_are_of() -> None:
    """Each target by hand from the columns of its task."""
    tasks = {"family": "mixture", "mixture": [{"family": "sine"}, {"family": "tanh"}]}
    family = make_family(dict(Config.model_validate({"tasks": tasks}).tasks))
    assert family.kinds == ["sine", "tanh"]
    sampled = family.sampler.sample([make_generator(0, "x")], num_tasks=20, num_support=1, num_query=1)
    columns = sampled.functions.columns()
    x = torch.full((1, 20, 1, 1), 0.7, dtype=torch.float64)
    for task, value in enumerate(sampled.functions(x).flatten().tolist()):
        row: dict[str, Any] = {name: values[task] for name, values in columns.items()}
        if row["kind"] == "sine":
            expected = row["amplitude"] * math.sin(0.7 * row["frequency"] - row["phase"]) + row["offset"]
            assert row["center"] is None
        else:
            expected = row["amplitude"] * math.tanh(0.7 - row["center"]) + row["offset"]
            assert row["frequency"] is row["phase"] is None
        assert value == pytest.approx(expected, rel=1e-12)


def test_a_file_that_cannot_be_written_is_named_and_does_not_lose_the_numbers(cli: Cli, trained: str) -> None:
    Path("taken").write_text("x")
    result = cli("eval", trained, "--tasks", 5, "--per-task", "taken/t.csv")
    assert result.code == 3 and result.err.splitlines()[-1] == (
        "--per-task taken/t.csv: cannot be written: taken is not a directory"
    )
    assert "100-point grid" in result.out
    refused = cli("eval", trained, "--per-task", "-")
    assert refused.code == 2 and refused.err == "--per-task -: give a file; standard output has the results\n"


def test_an_old_file_is_as_it_was_until_all_rows_are_written(
    cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("t.csv").write_text("old")

    def failing_rows(result: object) -> Any:
        yield "task\n"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("maml_cli.reporting.task_table.iter_task_csv", failing_rows)
    result = cli("eval", trained, "--tasks", 5, "--per-task", "t.csv")
    assert result.code == 3 and "--per-task t.csv: cannot be written: No space left on device" in result.err
    assert Path("t.csv").read_text() == "old" and [path.name for path in Path().glob("*.tmp*")] == []


def test_errors_of_kinds_have_the_error_of_all_tasks_as_their_weighted_mean(cli: Cli, mixture: str) -> None:
    """For the learner after each inner step and for the baselines, on all points; and in the table."""
    arguments = ["eval", mixture, "--tasks", 600, "--steps", 1]
    evaluation = json.loads(cli(*arguments, "--json", "--per-task", "t.csv").out)["results"][0]
    kinds, rows = evaluation["by_kind"], _rows("t.csv")
    for kind in kinds:
        errors = [float(row["mse_step_1"]) for row in rows if row["kind"] == kind["kind"]]
        assert len(errors) == kind["num_tasks"]
        assert kind["steps"][1]["grid"]["mse"]["mean"] == pytest.approx(sum(errors) / len(errors), rel=1e-6)
    assert [kind["kind"] for kind in kinds] == ["sine", "line 1", "line 2"]
    assert sum(kind["num_tasks"] for kind in kinds) == 600

    def weighted(*path: Any) -> float:
        total = 0.0
        for kind in kinds:
            value = kind
            for key in path:
                value = value[key]
            total += kind["num_tasks"] * value["mean"]
        return total / 600

    for points in "grid", "query", "support":
        for measure in "mse", "mae":
            for step in 0, 1:
                mean = evaluation["steps"][step][points][measure]["mean"]
                assert weighted("steps", step, points, measure) == pytest.approx(mean, rel=1e-5)
            zero = evaluation["baselines"]["zero"][points][measure]["mean"]
            assert weighted("baselines", "zero", points, measure) == pytest.approx(zero, rel=1e-9)
    # E[A^2]/2 for sinusoids, E[a^2] E[x^2] + E[b^2] for lines on the grid of 100 points, whose E[x^2] is 25/3 * 101/99
    grid_x2 = 25 / 3 * 101 / 99
    for kind, expected in zip(kinds, (4.2517, 3 * grid_x2 + 3, 25 * grid_x2 + 3), strict=True):
        zero = kind["baselines"]["zero"]["grid"]["mse"]
        assert abs(zero["mean"] - expected) < 4 * zero["ci95"] / 1.96
    out = cli(*arguments).out
    assert max(map(len, out.splitlines())) <= 80
    table = out.partition("kinds of tasks, mean MSE on the 100-point grid\n")[2].splitlines()
    assert table[0].split() == ["sine", "line", "1", "line", "2"]
    means = [kind["steps"][1]["grid"]["mse"]["mean"] for kind in kinds] + [
        evaluation["steps"][1]["grid"]["mse"]["mean"]
    ]
    after_one = next(line for line in table if line.startswith("1*"))
    assert [*map(float, after_one.split()[1:])] == pytest.approx(means, rel=1e-3)


def test_a_kind_without_test_tasks_is_left_out_and_one_with_a_single_task_has_no_interval(cli: Cli) -> None:
    """Of two tasks, each kind of two has one or none."""
    Path("mix.yaml").write_text(MIXTURE)
    run = maml.load(cli("train", "-c", "mix.yaml", "-q").out.strip())
    seen = set()
    for seed in range(8):
        (evaluation,) = maml.evaluate(run, tasks=2, steps=0, seed=seed).results
        counts = {kind: errors.num_tasks for kind, errors in evaluation.by_kind.items()}
        seen |= {*counts.values()}
        assert sum(counts.values()) == 2
        for errors in evaluation.by_kind.values():
            assert math.isfinite(errors.steps[0].grid.mse.ci95) == (errors.num_tasks > 1)
    assert seen == {1, 2}


def test_other_families_have_no_kinds(trained: str) -> None:
    result = maml.evaluate(maml.load(trained), tasks=3, steps=0)
    assert "by_kind" not in result.to_dict()["results"][0] and "kind" not in result.to_rows()[0]


def test_rows_of_a_mixture_are_of_all_tasks_and_of_each_kind(mixture: str) -> None:
    rows = maml.evaluate(maml.load(mixture), tasks=50, steps=0).to_rows()
    assert {row["kind"] for row in rows} == {None, "sine", "line 1", "line 2"}
    assert {row["predictor"] for row in rows if row["kind"]} == {"learner", "zero", "best_unadapted", "least_squares"}


def test_errors_that_are_kept_count_in_the_memory_of_an_evaluation(
    trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 bytes for each of 1,000,000 tasks and 11 inner steps, at both K."""
    needed: list[float] = []

    def refuse(size: float, **words: object) -> None:
        needed.append(size)
        raise ConfigError("too much")

    monkeypatch.setattr("maml_cli.evaluation.memory.require_memory", refuse)
    for per_task in False, True:
        with pytest.raises(ConfigError, match="too much"):
            maml.evaluate(maml.load(trained), tasks=1_000_000, shots=(5, 10), per_task=per_task)
    assert needed[1] - needed[0] == 2 * 11 * 4 * 1_000_000
