"""Comparisons of runs on the same test tasks: differences task by task, and refusals of unlike families."""

import csv
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from maml_cli.core import expand_to_tasks
from maml_cli.errors import ConfigError
from maml_cli.evaluation import (
    PointErrors,
    Protocol,
    Statistic,
    TrainedRun,
    compare_runs,
    evaluate_run,
    open_run,
    sample_test_tasks,
)
from maml_cli.evaluation.task_errors import adapted_errors
from tests.conftest import TINY_RUN, Cli

QUICK = [*TINY_RUN, "-q", "-s", "run.checkpoint_every=6"]


@pytest.fixture
def two_runs(cli: Cli) -> list[TrainedRun]:
    """A run of one inner step, and one of three inner steps with per-step alphas, trained at K = 5."""
    changes = ["inner.steps=3", "inner.alpha.per_step=true", "inner.alpha.learned=true", "tasks.num_support=5"]
    first = cli("train", "-c", "smoke", *QUICK).out.strip()
    second = cli("train", "-c", "smoke", *QUICK, *(word for c in changes for word in ("-s", c))).out.strip()
    return [open_run(Path(run)) for run in (first, second)]


def _grid_mse(run: TrainedRun, *, shots: int, step: int, num_tasks: int) -> torch.Tensor:
    experiment = run.experiment
    tasks = sample_test_tasks(experiment.family, Protocol(num_tasks=num_tasks), shots)
    errors = adapted_errors(
        experiment, tasks, lambda count: expand_to_tasks(run.meta_params, count), num_runs=1, steps=step
    )
    return errors[step]["grid"][0, :, 0].double()


def _without_tails(steps: list[PointErrors]) -> list[Statistic]:
    return [value._replace(tail=None) for errors in steps for points in errors for value in points]


def test_errors_are_those_of_an_evaluation_and_differences_are_paired_by_task(two_runs: list[TrainedRun]) -> None:
    """Interval of the mean difference: 1.96 s / sqrt(n) of the differences, not of the two errors."""
    (comparison,) = compare_runs(two_runs, Protocol(shots=(7,), num_tasks=40))
    assert (comparison.shots, comparison.num_tasks, comparison.measure) == (7, 40, "mse")
    for run, compared in zip(two_runs, comparison.runs, strict=True):
        (evaluation,) = evaluate_run(run, Protocol(shots=(7,), num_tasks=40)).results
        assert (
            _without_tails(compared.steps) == _without_tails(evaluation.steps)
            and compared.compared_step == compared.trained_steps
        )
    assert [run.compared_step for run in comparison.runs] == [1, 3]
    assert [len(run.steps) for run in comparison.runs] == [11, 4]
    first, second = (
        _grid_mse(run, shots=7, step=step, num_tasks=40) for run, step in zip(two_runs, (1, 3), strict=True)
    )
    difference = comparison.runs[1].difference
    assert comparison.runs[0].difference is None and difference is not None
    assert difference.mean == pytest.approx((second - first).mean().item(), rel=1e-12)
    assert difference.ci95 == pytest.approx(1.96 * (second - first).std().item() / math.sqrt(40), rel=1e-12)


@pytest.fixture
def three_l1(cli: Cli) -> list[str]:
    """Runs of three seeds that are trained on L1."""
    return [
        cli("train", "-c", "smoke", *QUICK, "-s", "inner.loss=l1", "-s", f"run.seed={seed}").out.strip()
        for seed in range(3)
    ]


def test_l1_learners_are_compared_by_mean_absolute_error_and_mixed_runs_by_mean_squared(
    cli: Cli, three_l1: list[str]
) -> None:
    trained_runs = [open_run(Path(run)) for run in three_l1[:2]]
    assert compare_runs(trained_runs, Protocol(num_tasks=10))[0].measure == "mae"
    mixed = [trained_runs[0], open_run(Path(cli("train", "-c", "smoke", *QUICK).out.strip()))]
    assert compare_runs(mixed, Protocol(num_tasks=10))[0].measure == "mse"


def test_each_run_is_compared_with_the_first_on_the_tasks_of_the_protocol(cli: Cli, three_l1: list[str]) -> None:
    """Against the errors of `maml eval` on the tasks of seed 3."""
    protocol = Protocol(num_tasks=30, seed=3)
    trained_runs = [open_run(Path(run)) for run in three_l1]
    (comparison,) = compare_runs(trained_runs, protocol)
    assert comparison.seed == 3
    alone = [evaluate_run(run, protocol).results[0].steps[1].grid.mae.mean for run in trained_runs]
    assert [run.steps[1].grid.mae.mean for run in comparison.runs] == pytest.approx(alone, rel=1e-12)
    differences = [run.difference.mean for run in comparison.runs if run.difference]
    assert differences == pytest.approx([alone[1] - alone[0], alone[2] - alone[0]], rel=1e-9)
    shown = cli("compare", *three_l1, "--tasks", 30, "--seed", 3).out.splitlines()
    (row,) = (line for line in shown if line.startswith(f"{three_l1[2]} "))
    assert f"{alone[2]:.4f} ±" in row and f"{differences[1]:.4f} ±" in row


def test_the_family_of_the_third_run_is_checked_as_well(cli: Cli) -> None:
    runs = [cli("train", "-c", "smoke", *QUICK).out.strip()] * 2
    runs.append(cli("train", "-c", "smoke", *QUICK, "-s", "tasks.phase=[0,1]").out.strip())
    assert cli("compare", *runs, "--tasks", 4).code == 2


def test_overflow_counts_as_an_infinite_difference_except_from_the_same_run(cli: Cli) -> None:
    """Sixty inner steps of far too large an alpha; tasks that overflow in both runs do not differ."""
    wild = cli("train", "-c", "smoke", *QUICK, "-s", "inner.alpha.init=3", "-s", "outer.clip_task_norm=1").out.strip()
    tame = cli("train", "-c", "smoke", *QUICK).out.strip()
    trained_runs = [open_run(Path(run)) for run in (wild, tame)]
    (comparison,) = compare_runs(trained_runs, Protocol(steps=60, num_tasks=20))
    wild_errors, tame_errors = (run.steps[60].grid.mse for run in comparison.runs)
    assert wild_errors.mean == math.inf and math.isfinite(tame_errors.mean)
    difference = comparison.runs[1].difference
    assert difference is not None and difference.mean == -math.inf
    (comparison,) = compare_runs([trained_runs[0], trained_runs[0]], Protocol(steps=60, num_tasks=20))
    difference = comparison.runs[1].difference
    assert difference is not None and (difference.mean, difference.median) == (0.0, 0.0)


def test_checkpoints_of_one_run_are_named_by_their_files_and_compared_where_no_figure_can_be_written(cli: Cli) -> None:
    run = cli("train", "-c", "smoke", *QUICK).out.strip()
    files = [f"{run}/checkpoints/step-{step:08d}.pt" for step in (6, 12)]
    Path("taken").write_text("")
    result = cli("compare", *files, "--tasks", 4, "--json", "--out", "taken/c.png")
    assert result.code == 3 and result.err.startswith("--out taken/c.png: cannot be written: ")
    document = json.loads(result.out)
    assert [run["label"] for run in document["results"][0]["runs"]] == files and document["figures"] == []


def test_all_runs_are_compared_after_the_inner_steps_of_the_protocol(two_runs: list[TrainedRun]) -> None:
    (comparison,) = compare_runs(two_runs, Protocol(shots=(5,), steps=2, num_tasks=10))
    assert [run.compared_step for run in comparison.runs] == [2, 2]
    assert [len(run.steps) for run in comparison.runs] == [3, 3]
    with pytest.raises(ConfigError, match="--steps 4: outputs/smoke-2 has alphas for 3 inner steps and no rule for"):
        compare_runs(two_runs, Protocol(shots=(5,), steps=4, num_tasks=10))


def test_a_run_has_no_difference_from_itself(two_runs: list[TrainedRun]) -> None:
    (comparison,) = compare_runs([two_runs[0], two_runs[0]], Protocol(num_tasks=10))
    difference = comparison.runs[1].difference
    assert difference is not None and (difference.mean, difference.ci95, difference.median) == (0.0, 0.0, 0.0)


def test_different_families_and_different_k_are_refused_unless_asked_for(cli: Cli, two_runs: list[TrainedRun]) -> None:
    with pytest.raises(ConfigError, match=r"trained with K = 5, 10; give the K to compare them at, such as --shots 5"):
        compare_runs(two_runs, Protocol(num_tasks=10))
    run = cli("train", "-c", "smoke", *QUICK, "-s", "tasks.frequency=[0.8,1.2]").out.strip()
    command = ["compare", "outputs/smoke", run, "--tasks", 10]
    refused = cli(*command)
    assert refused.code == 2 and refused.out == "" and not [*Path("outputs").glob("*.png")]
    assert refused.err == (
        f"{run}: another family than outputs/smoke: tasks.frequency is [0.8, 1.2], not 1.0; maml compare and maml diff "
        "take the tasks of the first with --any-family\n"
    )
    # A report has no such option, so that the advice names the commands that do.
    page = Path(cli("report", "outputs/smoke", run, "--tasks", 10).out.strip()).read_text()
    assert refused.err.strip() in page
    runs = json.loads(cli(*command, "--any-family", "--json").out)["results"][0]["runs"]
    expected = _grid_mse(open_run(Path("outputs/smoke")), shots=10, step=1, num_tasks=10).mean().item()
    assert runs[0]["steps"][1]["grid"]["mse"]["mean"] == pytest.approx(expected, rel=1e-9)


def test_a_table_within_80_columns_a_figure_for_each_k_and_one_document(cli: Cli, two_runs: list[TrainedRun]) -> None:
    runs = [str(run.checkpoint.label) for run in two_runs]
    result = cli("compare", *runs, "--shots", "5,10", "--tasks", 10, "--out", "here/c.svg")
    assert result.code == 0 and max(map(len, result.out.splitlines())) <= 80
    assert all(result.out.count(text) == 2 for text in ("outputs/smoke ", "outputs/smoke-2 ", "difference from first"))
    assert result.err == "drawn as here/c-5shot.svg, here/c-10shot.svg\n"
    first = Path("here/c-5shot.svg").read_bytes()
    document = json.loads(cli("compare", *runs, "--shots", "5,10", "--tasks", 10, "--out", "here/c.svg", "--json").out)
    assert document["schema_version"] == 1 and document["figures"] == ["here/c-5shot.svg", "here/c-10shot.svg"]
    assert [result["shots"] for result in document["results"]] == [5, 10]
    for run in document["results"][0]["runs"]:
        assert run.keys() == {"label", "trained_steps", "compared_step", "num_seeds", "steps", "difference"}
    assert document["results"][0]["runs"][0]["difference"] is None
    assert document["results"][0]["runs"][1]["difference"].keys() == {"mean", "ci95", "median"}
    assert Path("here/c-5shot.svg").read_bytes() == first


def test_json_has_the_errors_of_baselines_on_the_same_tasks(cli: Cli, trained: str) -> None:
    """From the amplitudes and phases of the tasks alone. Amplitudes are uniform from 0.1 to 5 and phases from 0 to pi,
    so that the mean function is 2.55 times the mean of sin(x - phase), which is -2 cos(x) / pi."""
    document = json.loads(cli("compare", trained, trained, "--tasks", 30, "--seed", 4, "--json").out)
    assert cli("eval", trained, "--tasks", 30, "--seed", 4, "--per-task", "tasks.csv").code == 0
    with open("tasks.csv", newline="") as table:
        tasks = [(float(row["amplitude"]), float(row["phase"])) for row in csv.DictReader(table)]
    amplitude, phase = torch.tensor(tasks, dtype=torch.float64).T[:, :, None]
    x = torch.linspace(-5, 5, 100, dtype=torch.float64)
    truth = amplitude * torch.sin(x - phase)
    baselines = document["results"][0]["baselines"]
    assert baselines.keys() == {"zero", "best_unadapted", "least_squares"}
    for name, predicted in (("zero", 0 * x), ("best_unadapted", -5.1 / math.pi * torch.cos(x))):
        errors = (predicted - truth).pow(2).mean(1)
        obtained = baselines[name]["grid"]["mse"]
        assert obtained["mean"] == pytest.approx(errors.mean().item(), rel=1e-5)
        assert obtained["ci95"] == pytest.approx(1.96 * errors.std().item() / math.sqrt(30), rel=1e-4)
    assert baselines["zero"]["grid"]["mae"]["mean"] == pytest.approx(truth.abs().mean().item(), rel=1e-5)
    assert baselines["least_squares"]["grid"]["mse"]["mean"] < 1e-12  # ten points without noise, the frequency is known


def test_runs_that_overflow_are_drawn_and_joint_training_is_compared_before_adapting(cli: Cli) -> None:
    assert cli("train", "-c", "smoke", *QUICK, "-s", "tasks.amplitude=1e30").code == 5
    result = cli("compare", "outputs/smoke", "outputs/smoke", "--tasks", 4)
    assert result.code == 0, result.err
    joint = cli("train", "-c", "joint-10shot", *QUICK).out.strip()
    joint_run = json.loads(cli("compare", joint, joint, "--tasks", 4, "--json").out)["results"][0]["runs"][0]
    assert (joint_run["trained_steps"], joint_run["compared_step"]) == (0, 0)


def test_a_missing_checkpoint_is_reported(cli: Cli, two_runs: list[TrainedRun]) -> None:
    (Path("outputs/smoke/checkpoints") / "step-00000012.pt").unlink()
    result = cli("compare", "outputs/smoke", "outputs/smoke", "--tasks", 4)
    assert result.code == 0 and "step-00000012.pt: missing; using the newest checkpoint, step-00000006.pt" in " ".join(
        result.err.split()
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["outputs/x"], "give two runs or more to compare"),
        (["outputs/x", "outputs/y", "--out", "c.gif"], "--out c.gif: must end in .png, .svg or .pdf"),
        (["outputs/x", "outputs/y"], "outputs/x: no such"),
    ],
)
def test_runs_that_cannot_be_compared_give_one_message(cli: Cli, arguments: list[str], words: str) -> None:
    result = cli("compare", *arguments)
    assert result.code in (2, 3) and words in " ".join(result.err.replace("│", " ").split())


def test_names_too_long_for_a_terminal_are_whole_below_the_table_and_above_the_keys(
    cli: Cli, two_runs: list[TrainedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"outputs/a-sweep-of-learned-step-sizes/trial-00{number}" for number in (1, 2)]
    for run, name in zip(two_runs, names, strict=True):
        shutil.copytree(run.checkpoint.run or "", name)
    monkeypatch.setattr("maml_cli.reporting.tables.PIPE_WIDTH", 80)
    lines = cli("compare", *names, "--tasks", 10, "--shots", 5).out.splitlines()
    assert [line for line in lines if "trial-" in line] == [f"[1] {names[0]}", f"[2] {names[1]}"]
    assert [line.split()[0] for line in lines if line.startswith("[")] == ["[1]", "[2]", "[1]", "[2]"]
    keys = cli("diff", *names, "--tasks", 10, "--shots", 5).out.splitlines()
    assert keys[:2] == [f"first: {names[0]}", f"second: {names[1]}"] and keys[2].split() == ["key", "first", "second"]
