"""The family data: curves of the user's own, from the table to errors in the units of the table."""

import math
import random
from collections import Counter
from pathlib import Path

import pytest
import torch

import maml_cli as maml
from maml_cli.config import from_dict
from maml_cli.core import Points
from maml_cli.dev import station_curves
from maml_cli.errors import ConfigError, DataError, FileError
from maml_cli.evaluation import Protocol, evaluate_run, fit_tasks
from maml_cli.experiment import build_experiment, measure_data
from maml_cli.tables import Columns
from maml_cli.tasks import Baseline, Curves, Source, curves, make_generator, read_curves
from maml_cli.tasks.data_baselines import baselines, best_frequency
from maml_cli.tasks.data_family import CurveSampler
from tests.conftest import Cli

COLUMNS = Columns("x", "y", "task")
SMALL = {
    "model": {"hidden": [8], "activation": "tanh"},
    "outer": {"steps": 6, "tasks_per_step": 3},
    "run": {"eval_every": 3, "eval_tasks": 3, "log_every": 2, "checkpoint_every": 3, "engine": "eager"},
}


def _wave(task: int, x: float) -> float:
    return 2 + task % 5 + (1 + task / 10) * math.sin(0.5 * x - task / 7)


def _write(file: str, *, num_tasks: int = 20, sizes: tuple[int, ...] = (12, 9, 15), factor: float = 1.0) -> str:
    """A ragged table of waves with different inputs; targets are multiplied by `factor`, and 3 is added for others."""
    stream, rows = random.Random(0), ["task,x,y"]
    for task in range(num_tasks):
        for _ in range(sizes[task % len(sizes)]):
            x = stream.uniform(0, 20)
            rows.append(f"c{task},{x!r},{_wave(task, x) * factor + (3 if factor != 1 else 0)!r}")
    Path(file).write_text("\n".join(rows) + "\n")
    return file


def _source(file: str, seed: int = 0, shares: tuple[float, float] = (0.2, 0.3)) -> Source:
    return Source(file, COLUMNS, shares, seed)


def _config(file: str, **tasks: object) -> maml.Config:
    section = {"family": "data", "file": file, "num_support": 4, "num_query": 4, **tasks}
    return from_dict({**SMALL, "tasks": section}, label="config")


@pytest.fixture
def table(cli: Cli) -> str:
    """Twenty curves of 9, 12 or 15 points, in the directory of the test."""
    return _write("curves.csv")


def test_a_split_by_seed_has_disjoint_parts_of_the_asked_shares(table: str) -> None:
    parts = [read_curves(_source(table, seed)).split.tolist() for seed in (0, 0, 1)]
    assert all(Counter(part) == {0: 10, 1: 4, 2: 6} for part in parts)
    assert parts[0] == parts[1] != parts[2]


def test_a_column_assigns_each_curve_to_one_part(cli: Cli) -> None:
    rows = [("a", "train"), ("a", "train"), ("b", "test"), ("b", "test"), ("c", "validation")]
    Path("t.csv").write_text(
        "task,x,y,split\n" + "".join(f"{task},{i},0,{split}\n" for i, (task, split) in enumerate(rows))
    )
    assert read_curves(_source("t.csv")).split.tolist() == [0, 2, 1]
    Path("t.csv").write_text("task,x,y,split\na,0,0,train\na,1,0,test\n")
    with pytest.raises(DataError, match=r"t\.csv:3: another split than in the first row of 'a'"):
        read_curves(_source("t.csv"))
    Path("t.csv").write_text("task,x,y,split\na,0,0,learn\n")
    with pytest.raises(DataError, match="must be train or validation or test"):
        read_curves(_source("t.csv"))


def test_support_and_query_points_are_all_ordered_pairs_of_points_equally_often(cli: Cli) -> None:
    """5 * 4 pairs, each with probability 1/20: 20,000 draws have 1,000 +- 31 of each; 200 is beyond six deviations."""
    Path("t.csv").write_text("task,x,y\n" + "".join(f"a,{x},{x * x}\n" for x in range(5)))
    sampler = CurveSampler(_source("t.csv", shares=(0, 0)), None)
    batch, _ = sampler.sample([make_generator(0, "x")], num_tasks=20_000, num_support=1, num_query=1)
    pairs = Counter(zip(batch.support.x.flatten().tolist(), batch.query.x.flatten().tolist(), strict=True))
    assert len(pairs) == 20 and all(abs(count - 1000) < 200 for count in pairs.values())
    assert torch.equal(batch.query.y, batch.query.x**2)


def test_draws_never_repeat_a_point_and_come_from_training_curves_alone(table: str) -> None:
    curves = read_curves(_source(table))
    allowed = {*curves.points(curves.indices("train"))[0].tolist()}
    sampler = CurveSampler(_source(table), None)
    batch, _ = sampler.sample(
        [make_generator(seed, "x") for seed in (0, 1)], num_tasks=50, num_support=4, num_query=5, dtype=torch.float64
    )
    x = torch.cat([batch.support.x, batch.query.x], dim=-2).squeeze(-1)
    assert x.shape == (2, 50, 9) and {*x.flatten().tolist()} <= allowed
    assert all(len({*row}) == 9 for row in x.flatten(0, 1).tolist())


def test_several_outer_steps_at_once_are_the_same_as_one_after_the_other(table: str) -> None:
    sampler = CurveSampler(_source(table), None)
    sizes = {"num_tasks": 3, "num_support": 2, "num_query": 2}
    together, _ = sampler.sample([make_generator(seed, "x") for seed in (0, 1)], num_steps=4, **sizes)  # type: ignore[arg-type]
    generators = [make_generator(seed, "x") for seed in (0, 1)]
    for step in range(4):
        alone, _ = sampler.sample(generators, **sizes)  # type: ignore[arg-type]
        assert torch.equal(together.support.x[step], alone.support.x)
        assert torch.equal(together.query.y[step], alone.query.y)


def test_each_test_curve_is_one_task_with_all_of_its_points(table: str) -> None:
    curves, sampler = read_curves(_source(table)), CurveSampler(_source(table), None)
    assert sampler.num_test_tasks("test", 10_000, 5) == 6 and sampler.num_test_tasks("validation", 3, 5) == 3
    blocks = [
        *sampler.iter_test_blocks([make_generator(0, "test")], purpose="test", num_tasks=6, num_shots=5, num_grid=100)
    ]
    seen = {}
    for block in blocks:
        for index, label in enumerate(block.functions.labels):
            support, grid, query = (
                block.points[name].x[0, index, :, 0].tolist() for name in ("support", "grid", "query")
            )
            assert len(support) == 5 and query == grid[:5]
            seen[label] = sorted([*support, *grid])
    expected = {
        curves.labels[index]: sorted(curves.points(torch.tensor([index]))[0].tolist())
        for index in curves.indices("test").tolist()
    }
    assert seen == expected


def test_errors_scale_with_the_units_of_the_table_whatever_the_normalisation(cli: Cli) -> None:
    """Targets 10 y + 3 are normalised to those of y, so that a training is the same and its squared errors are 100
    times as large, those of the baselines that do not know zero as well; predictions are mapped likewise."""
    for normalise in ("standard", "range"):
        runs = []
        for name, factor in (("one", 1.0), ("ten", 10.0)):
            config = _config(_write(f"{name}.csv", factor=factor), data={"normalise": normalise})
            runs.append(maml.train(config, out=f"{name}-{normalise}"))
        one, ten = (evaluate_run(run, Protocol()).results[0] for run in runs)
        for step in range(3):
            assert ten.steps[step].grid.mse.mean == pytest.approx(100 * one.steps[step].grid.mse.mean, rel=1e-3)
            assert ten.steps[step].query.mae.mean == pytest.approx(10 * one.steps[step].query.mae.mean, rel=1e-3)
        for name in ("mean_curve", "least_squares_sinusoid"):
            errors = [evaluation.baselines[name] for evaluation in (one, ten)]
            assert errors[0] and errors[1]
            assert errors[1].grid.mse.mean == pytest.approx(100 * errors[0].grid.mse.mean, rel=1e-5)
        points = [4.0, 9.0, 13.0, 17.0], [1.0, 2.0, 3.0, 2.0]
        small = runs[0].adapt(*points).predict([5.0])
        large = runs[1].adapt(points[0], [10 * y + 3 for y in points[1]]).predict([5.0])
        assert large[0] == pytest.approx(10 * small[0] + 3, rel=1e-4)
        fits = [fit_tasks(run, Protocol(2)) for run in runs]
        assert torch.allclose(fits[1][0].predictions, 10 * fits[0][0].predictions + 3, rtol=1e-3)
        assert torch.allclose(fits[1][1].errors, 10 * fits[0][1].errors, rtol=1e-2, atol=1e-3)


def test_normalisations_have_mean_zero_and_variance_one_or_end_at_plus_and_minus_one(table: str) -> None:
    curves = read_curves(Source(table, COLUMNS, (0.15, 0.15), 0))
    x, y = curves.points(curves.indices("train"))
    for normalise in ("standard", "range", "none"):
        config = measure_data(_config(table, data={"normalise": normalise}))
        scaling = build_experiment(config).family.scaling
        mapped = torch.stack([scaling.x_to_network(x), scaling.y_to_network(y)])
        if normalise == "standard":
            assert torch.allclose(mapped.mean(dim=1), torch.zeros(2).double(), atol=1e-12)
            assert torch.allclose(mapped.square().mean(dim=1), torch.ones(2).double())
        elif normalise == "range":
            assert torch.allclose(torch.stack(mapped.aminmax(dim=1)), torch.tensor([[-1.0], [1.0]]).double())
        else:
            assert torch.equal(mapped, torch.stack([x, y]))
        assert torch.allclose(scaling.y_to_user(mapped[1]), y)


def _curves(x: torch.Tensor, y: torch.Tensor) -> Curves:
    """Training curves (T, n) of equal sizes."""
    count, size = x.shape
    labels = tuple(f"c{index}" for index in range(count))
    return Curves(labels, x.flatten(), y.flatten(), torch.full((count,), size), torch.zeros(count, dtype=torch.int64))


_NO_POINTS = Points(torch.empty(0), torch.empty(0))


def _baseline(curves: Curves, name: str) -> Baseline:
    baseline = baselines(curves)[name]
    assert baseline is not None
    return baseline


def test_the_mean_curve_goes_through_the_means_at_inputs_that_all_curves_share() -> None:
    x = torch.tensor([[0.0, 1.0, 3.0]] * 3).double()
    y = torch.tensor([[0.0, 2.0, 4.0], [3.0, 2.0, 1.0], [6.0, 8.0, 1.0]]).double()
    predictors = _baseline(_curves(x, y), "mean_curve")(_NO_POINTS, None)
    at = torch.tensor([[0.0], [1.0], [2.0], [3.0], [9.0], [-1.0]]).double()
    assert predictors.for_mse(at).flatten().tolist() == pytest.approx([3.0, 4.0, 3.0, 2.0, 2.0, 3.0])
    assert predictors.for_mae(at).flatten().tolist() == pytest.approx([3.0, 2.0, 1.5, 1.0, 1.0, 3.0])


@pytest.mark.parametrize("cycles", [0.9, 3.0, 7.77])
def test_the_sinusoid_has_the_frequency_of_the_curves_and_no_error_on_sinusoids(cycles: float) -> None:
    stream = make_generator(0, "x")
    amplitude, phase, offset = (torch.rand(30, 1, generator=stream, dtype=torch.float64) + 0.5 for _ in range(3))
    x = 100 * torch.rand(30, 40, generator=stream, dtype=torch.float64)
    frequency = 2 * math.pi * cycles / (x.max() - x.min()).item()
    curves = _curves(x, offset + amplitude * torch.sin(frequency * x - phase))
    assert best_frequency(curves) == pytest.approx(frequency, rel=2e-3 / min(cycles, 1))
    support_x = torch.tensor([5.0, 30.0, 60.0, 80.0]).double().reshape(1, 1, 4, 1)
    support = Points(support_x, 2 + 3 * torch.sin(frequency * support_x - 1))
    predict = _baseline(curves, "least_squares_sinusoid")(support, None).for_mse
    at = torch.linspace(5, 80, 50).double().reshape(1, 1, 50, 1)
    assert (predict(at) - (2 + 3 * torch.sin(frequency * at - 1))).abs().max() < 0.1


def test_a_run_adapts_without_its_table_and_refuses_a_table_that_has_changed(table: str) -> None:
    maml.train(_config(table), out="run")
    before = maml.load("run").adapt([1.0, 5.0, 9.0], [2.0, 3.0, 1.0]).predict([4.0])
    text = Path(table).read_text()
    Path(table).write_text(text + "c99,1,1\n")
    curves._read.cache_clear()  # as in another process
    with pytest.raises(DataError, match=r"curves\.csv: has changed since the training"):
        maml.evaluate(maml.load("run"))
    Path(table).unlink()
    assert maml.load("run").adapt([1.0, 5.0, 9.0], [2.0, 3.0, 1.0]).predict([4.0]) == before
    with pytest.raises(FileError, match=r"curves\.csv: cannot be read: No such file"):
        maml.evaluate(maml.load("run"))


def test_another_table_is_evaluated_in_the_units_of_the_training(table: str) -> None:
    maml.train(_config(table), out="run")
    _write("new.csv", num_tasks=7)
    run = maml.load("run", "tasks.file=new.csv", "tasks.data.test=1", "tasks.data.validation=0")
    (result,) = maml.evaluate(run).results
    assert result.num_tasks == 7 and math.isfinite(result.steps[1].grid.mse.mean)
    assert result.baselines["zero"] and result.baselines["mean_curve"] is None  # there are no training curves in it
    for setting in ("tasks.data.split_seed=1", "tasks.data.test=1"):
        with pytest.raises(ConfigError, match="the test curves are those of the training"):
            maml.load("run", setting)
    with pytest.raises(ConfigError, match="the normalisation is that of the training curves"):
        maml.load("run", "tasks.data.normalise=none")


def test_a_run_of_sinusoids_is_evaluated_on_curves(table: str) -> None:
    run = maml.load("finn-10shot", "tasks.family=data", f"tasks.file={table}", "tasks.num_support=4")
    (result,) = maml.evaluate(run).results
    assert result.num_tasks == 3 and {*result.baselines} == {"zero", "mean_curve", "least_squares_sinusoid"}


def test_a_stopped_training_ends_with_the_bytes_of_one_that_was_not(table: str, cli: Cli) -> None:
    config = _config(table)
    maml.train(config, "run.seeds=2", out="whole")
    cli("train", "--config", "whole/config.yaml", "--set", "outer.steps=6", "--out", "half")
    Path("half/checkpoints/step-00000006.pt").unlink()
    Path("half/last.json").unlink()
    assert cli("train", "--resume", "half").code == 0
    for name in ("checkpoints/step-00000006.pt", "metrics.jsonl"):
        assert Path("whole", name).read_bytes() == Path("half", name).read_bytes()


def test_commands_work_on_curves_from_a_config_in_another_directory(cli: Cli) -> None:
    Path("project").mkdir()
    _write("project/mine.csv")
    Path("project/mine.yaml").write_text(
        "tasks: {family: data, file: mine.csv, num_support: 4, num_query: 20}\n"
        "model: {hidden: [8]}\nouter: {steps: 4}\nrun: {engine: eager, eval_tasks: 3}\n"
    )
    result = cli("train", "--config", "project/mine.yaml", "--out", "run")
    assert result.code == 2 and "project/mine.csv: of its 14 training curves, the longest has 15" in result.err
    result = cli("train", "--config", "project/mine.yaml", "--set", "tasks.num_query=8", "--out", "run")
    assert result.code == 0
    assert "project/mine.csv: 14 for training, of which " in result.err
    assert "fewer than 12 points; 3 for validation, 3 for the test" in result.err
    table = cli("eval", "run").out
    assert "3 test tasks" in table and "other points" in table and "mean curve" in table and "sinusoid" in table
    assert cli("plot", "run").code == 0 and cli("compare", "run", "run", "--out", "c.png").code == 0
    Path("points.csv").write_text("x,y\n1,2\n5,3\n9,1\n")
    assert "leaves the trained range" not in cli("adapt", "run", "--data", "points.csv").err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "t.csv: empty"),
        ("x,y\n1,2\n", 't.csv:1: no column "task"'),
        ("task,x,y\na,1,2\nb,1,2\n", "t.csv: 2 curves cannot be split"),
        ("task,x,y\n" + "".join(f"{t},1,1e31\n" for t in range(9)), "t.csv: has a value of magnitude 1e+31"),
        ("task,x,y\na,1,two\n", 't.csv:2: y is "two"; give a number'),
        (
            "task,x,y\n" + "".join(f"{t},1,2\n" for t in range(9)),
            "training curves, the longest has 1; 8 points are needed",
        ),
    ],
)
def test_a_table_that_cannot_be_trained_on_is_one_message_and_no_run(content: str, message: str, cli: Cli) -> None:
    Path("t.csv").write_text(content)
    result = cli("train", "--config", "smoke", "--out", "run", *_settings("t.csv"))
    assert result.code == 2 and message in result.err and result.err.count("\n") == 1
    assert not Path("run").exists()


def _settings(file: str) -> list[str]:
    settings = ["tasks.family=data", f"tasks.file={file}", "tasks.num_support=4", "tasks.num_query=4"]
    return [word for setting in settings for word in ("--set", setting)]


def test_a_missing_table_is_an_error_of_files(cli: Cli) -> None:
    result = cli("train", "--config", "smoke", *_settings("none.csv"), "--out", "run")
    assert result.code == 3 and result.err == "none.csv: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    "setting",
    ["tasks.noise=0.1", "tasks.x=[0,1]", "tasks.count=5", "tasks.amplitude=2", "tasks.query_sampling=stratified"],
)
def test_settings_of_functions_are_refused_for_curves(setting: str, cli: Cli) -> None:
    Path("t.csv").write_text("task,x,y\n")
    result = cli("config", "check", "smoke", *_settings("t.csv"), "--set", setting)
    assert result.code == 2 and "has no effect: the points are those of tasks.file" in result.err


def test_a_table_is_refused_for_families_of_functions(cli: Cli) -> None:
    assert "has no effect: tasks.family is not data" in cli("config", "check", "smoke", "--set", "tasks.file=t.csv").err
    assert "must name a table" in cli("config", "check", "smoke", "--set", "tasks.family=data").err


def test_the_committed_table_is_that_of_the_formula() -> None:
    assert station_curves.file().read_text() == station_curves.table()


def test_a_normalisation_without_a_row_is_refused(table: str) -> None:
    with pytest.raises(NotImplementedError, match=r"tasks\.data\.normalise: unknown has no row"):
        curves.measure_curves(_source(table), "unknown")
