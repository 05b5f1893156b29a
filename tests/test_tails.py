"""The distribution of errors over tasks, by hand: percentiles, worst tasks, tasks that diverged, shares of the mean."""

import json
import math
import re
from pathlib import Path

import numpy
import pytest
import torch

from maml_cli.config import Config
from maml_cli.evaluation import Protocol, Tail, sample_test_tasks, statistic
from maml_cli.evaluation.evaluate import divergence_limits, evaluate
from maml_cli.evaluation.statistics import aggregate_seeds
from maml_cli.experiment import build_experiment
from maml_cli.reporting import result_tables
from tests.conftest import Cli


def _tail(values: list[float], limit: float = 1000.0) -> Tail:
    tail = statistic(torch.tensor(values), limit=limit).tail
    assert tail is not None
    return tail


def test_percentiles_are_linear_between_the_nearest_tasks() -> None:
    """Of 0 to 100, 90 and 99; of 1, 2, 3, 10 at position 0.9 * 3 = 2.7, 3 + 0.7 * 7; as numpy has them by default."""
    assert _tail([*map(float, range(101))])[:3] == (90.0, 99.0, 100.0)
    assert _tail([3.0, 1.0, 10.0, 2.0]).percentile_90 == pytest.approx(7.9)
    values = numpy.random.default_rng(0).lognormal(size=537).tolist()
    expected = numpy.percentile(numpy.float32(values), [90, 99])
    assert _tail(values)[:2] == pytest.approx(expected.tolist(), rel=1e-6)


def test_the_worst_tenth_is_rounded_down_and_has_one_task_at_least() -> None:
    """Of 1 to 29, the mean of 28 and 29; of five tasks, the worst."""
    assert _tail([*map(float, range(1, 30))]).worst_10_percent_mean == 28.5
    assert _tail([5.0, 1.0, 2.0, 3.0, 4.0]).worst_10_percent_mean == 5.0


def test_tasks_that_overflow_or_exceed_the_limit_are_counted_and_left_out_of_a_mean_named_so() -> None:
    """1, 2, 3 and 400 at the limit count; 401, an overflow and a NaN do not: (1 + 2 + 3 + 400) / 4."""
    tail = _tail([1.0, math.inf, 2.0, 401.0, 3.0, math.nan, 400.0], limit=400.0)
    assert (tail.num_diverged, tail.mean_without_diverged, tail.worst) == (3, 101.5, math.inf)
    assert tail.worst_1_percent_share is None and tail.tasks_for_10_percent_interval is None
    assert _tail([1.0, 2.0]).num_diverged == 0 and _tail([1.0, 2.0]).mean_without_diverged is None
    assert _tail([math.inf, 2000.0])[4:6] == (2, None)
    assert _tail([2.0, math.inf], limit=0.0)[4:6] == (1, 2.0)  # where zero makes no error, only what is not finite
    assert _tail([1.0, math.inf, math.inf, 2.0]).percentile_90 == math.inf


def test_one_task_of_a_hundred_that_carries_half_the_mean() -> None:
    """99 errors of 1 and one of 101: it has 101 of 200; s = 10 and the mean is 2, so (1.96 * 10 / 0.2)^2 = 9,604."""
    tail = _tail([1.0] * 99 + [101.0])
    assert tail.worst_1_percent_share == pytest.approx(0.505)
    assert tail.tasks_for_10_percent_interval == 9604
    assert _tail([1.0] * 98 + [101.0]).worst_1_percent_share is None  # there is no hundredth of 99 tasks
    assert _tail([0.0] * 200)[6:] == (None, None)


def test_several_seeds_have_means_of_percentiles_the_worst_of_all_and_the_sum_of_what_diverged() -> None:
    """Two seeds of 101 tasks, 0 to 100 and 0 to 200 in steps of 2, above 150 diverged: 25 of the second.

    The mean without them is (50 + 75) / 2. Task means are 0 to 150 in steps of 1.5: the worst has 150 of 101 * 75.
    """
    first = torch.arange(101, dtype=torch.float64)
    tail = aggregate_seeds(torch.stack([first, 2 * first]), limit=150.0).tail
    assert tail is not None
    assert tail[:4] == pytest.approx((135.0, 148.5, 200.0, (95.5 + 191.0) / 2))
    assert tail.num_diverged == 25 and tail.mean_without_diverged == pytest.approx((50 + 75) / 2)
    assert tail.worst_1_percent_share == pytest.approx(150 / (101 * 75))
    needed = (1.96 * 1.5 * first.std().item() / (0.1 * 75)) ** 2
    assert tail.tasks_for_10_percent_interval == round(needed)


@pytest.mark.parametrize(("constant", "num_diverged"), [(0.0, 0), (32.9, 0), (33.1, 50), (math.nan, 50)])
def test_a_task_diverges_beyond_a_hundred_times_the_error_of_zero(constant: float, num_diverged: int) -> None:
    """Tasks of amplitude 3, frequency 0 and phase -pi/2: y = 3 everywhere, and zero errs by 9, or 3 in absolute terms.

    A constant c errs by (c - 3)^2, which passes 900 at 33.
    """
    tasks = {"amplitude": 3, "frequency": 0, "phase": -math.pi / 2}
    experiment = build_experiment(Config.model_validate({"tasks": tasks, "run": {"dtype": "float64"}}))
    learner = experiment._replace(predict=lambda params, x: 0 * x[..., :1] + constant)
    test_tasks = sample_test_tasks(experiment.family, Protocol(num_tasks=50), 5)
    limits = divergence_limits(test_tasks)
    assert [*limits["grid"]] == pytest.approx([900.0, 300.0])
    evaluation = evaluate(learner, experiment.init_meta_params([0]), test_tasks, steps=0, trained_steps=0)
    tail = evaluation.steps[0].grid.mse.tail
    assert tail is not None and tail.num_diverged == num_diverged


def test_the_terminal_has_a_table_of_tails_and_names_the_mean_without_diverged_tasks(cli: Cli, trained: str) -> None:
    """A thousand times the alpha of training: most tasks diverge, and every row still fits."""
    arguments = ["eval", trained, "--tasks", 150, "--steps", 4, "--set", "inner.alpha.scale=1000"]
    document = json.loads(cli(*arguments, "--json").out)["results"][0]
    out = cli(*arguments).out
    assert max(map(len, out.splitlines())) <= 80
    _, _, table = out.partition("distribution over tasks, MSE on the 100-point grid\n")
    assert (
        "mean without" in table and "diverged: not finite, or an error above 100 times that of predicting zero" in out
    )
    cells = next(line.split() for line in table.splitlines() if line.startswith("0 "))
    at_start = document["steps"][0]["grid"]["mse"]
    names = ["percentile_90", "percentile_99", "worst", "worst_10_percent_mean", "num_diverged"]
    assert [*map(float, cells[1:])] == pytest.approx([at_start[name] for name in names], rel=1e-3)
    last = document["steps"][4]["grid"]["mse"]
    assert last["num_diverged"] > 0 and "mean_without_diverged" in last
    plain = cli("eval", trained, "--tasks", 150, "--steps", 1).out
    assert "without" not in plain and "not finite, or" not in plain


def test_a_note_says_that_few_tasks_carry_the_mean_and_how_many_would_be_needed(
    cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the trained number of inner steps, 1, or at the last step shown."""
    command = ["eval", trained, "--tasks", 200]
    assert "carry" not in cli(*command).out
    monkeypatch.setattr(result_tables, "LARGE_SHARE", 0.0)
    for steps, named in ((3, "1 inner step"), (0, "0 inner steps")):
        document = json.loads(cli(*command, "--steps", steps, "--json").out)["results"][0]
        error = document["steps"][min(steps, 1)]["grid"]["mse"]
        text = " ".join(cli(*command, "--steps", steps).out.split())
        match = re.search(r"after (.*?) the worst 1 % of the tasks carry (\d+)% of the mean: some ([\d,]+)", text)
        assert match and match[1] == named
        assert int(match[2]) == round(100 * error["worst_1_percent_share"])
        assert int(match[3].replace(",", "")) == pytest.approx(error["tasks_for_10_percent_interval"], rel=5e-3)
        s = error["ci95"] / 1.96 * math.sqrt(200)
        assert error["tasks_for_10_percent_interval"] == round((1.96 * s / (0.1 * error["mean"])) ** 2)


def test_every_row_of_the_api_has_the_tail(trained: str) -> None:
    import maml_cli as maml

    rows = maml.evaluate(maml.load(Path(trained)), tasks=20, steps=1).to_rows()
    assert all(row["percentile_90"] <= row["percentile_99"] <= row["worst"] for row in rows)
    seed = maml.evaluate(maml.load(Path(trained)), tasks=20, steps=1).to_dict()["results"][0]["by_seed"][0]
    assert seed["steps"][1]["grid"]["mse"]["percentile_90"] == rows[6]["percentile_90"] and rows[6]["inner_step"] == 1
    assert {row["predictor"] for row in rows} == {"learner", "random_init", "zero", "best_unadapted", "least_squares"}
