"""Seeds as an ensemble: errors of the mean prediction and of the normal distribution around it."""

import json
import math
from pathlib import Path

import pytest
import scipy.stats
import torch

from maml_cli.adaptation.outputs import NORMAL_QUANTILE_95
from maml_cli.core import expand_to_tasks
from maml_cli.evaluation import Protocol, TrainedRun, evaluate_run, open_run, sample_test_tasks
from maml_cli.evaluation.ensemble import ensemble_errors, new_ensemble
from tests.conftest import TINY_RUN, Cli


def _points(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1)


def test_two_seeds_by_hand() -> None:
    """Predictions 1 and 3: mean 2, variance 2, band 2 ± 2.326. The target 4 is within it, 5 is not.

    Squared errors 4 and 9; NLL (log(4 pi)) / 2 + 4 / 4 and + 9 / 4.
    """
    predictions = torch.stack([_points(1, 1), _points(3, 3)])
    ((squared, nll, coverage),) = ensemble_errors(predictions, _points(4, 5)).tolist()
    assert squared == pytest.approx((4 + 9) / 2) and coverage == 0.5
    assert nll == pytest.approx(0.5 * math.log(4 * math.pi) + (4 / 4 + 9 / 4) / 2)


def test_seeds_that_agree_at_a_point_have_an_infinite_likelihood_there_and_no_band() -> None:
    """Also where they are right, which the point itself counts as within its band."""
    predictions = torch.stack([_points(1, 1), _points(1, 3)])
    assert ensemble_errors(predictions, _points(1, 2)).tolist() == [[0.0, math.inf, 1.0]]
    assert ensemble_errors(predictions, _points(5, 2)).tolist() == [[8.0, math.inf, 0.5]]
    overflow = torch.stack([_points(math.inf), _points(0)])
    assert ensemble_errors(overflow, _points(1)).tolist() == [[math.inf, math.inf, 0.0]]


def test_a_single_seed_is_no_ensemble() -> None:
    assert new_ensemble([3], 5) is None


@pytest.fixture
def run(cli: Cli) -> TrainedRun:
    """A run of three seeds, of which the second diverged."""
    opened = open_run(Path(cli("train", "-c", "smoke", *TINY_RUN, "-q", "-s", "run.seeds=3").out.strip()))
    opened.checkpoint.contents["diverged"] = torch.tensor([0, 5, 0])
    return opened


def test_errors_of_the_ensemble_are_those_of_scipy_on_the_predictions_of_the_active_seeds(run: TrainedRun) -> None:
    (evaluation,) = evaluate_run(run, Protocol(num_tasks=120, steps=2)).results
    tasks = sample_test_tasks(run.experiment.family, Protocol(num_tasks=120), 10)
    (chunk,) = tasks.iter_chunks(run.experiment.network_inputs, num_runs=3, chunk=200)
    support = type(chunk["support"])(*(values.float() for values in chunk["support"]))
    adapted = run.experiment.algorithm.unroll(expand_to_tasks(run.meta_params, 120), support, 2)
    for errors, params in zip(evaluation.ensemble, adapted, strict=True):
        predictions = run.experiment.predict(params, chunk["grid"].x.float()).detach()[[0, 2]].double().numpy()
        truth = chunk["grid"].y[0].numpy()
        normal = scipy.stats.norm(predictions.mean(axis=0), predictions.std(axis=0, ddof=1))
        squared = ((predictions.mean(axis=0) - truth) ** 2).mean(axis=(1, 2))
        nll = -normal.logpdf(truth).mean(axis=(1, 2))
        covered = (normal.cdf(truth) > 0.05) & (normal.cdf(truth) < 0.95)
        assert errors.mse.mean == pytest.approx(squared.mean(), rel=1e-4)
        assert errors.mse.ci95 == pytest.approx(1.96 * squared.std(ddof=1) / math.sqrt(120), rel=1e-3)
        assert errors.nll.mean == pytest.approx(nll.mean(), rel=1e-2)
        assert errors.coverage.mean == pytest.approx(covered.mean(), abs=2e-4)


def test_the_mean_prediction_of_seeds_is_no_worse_than_the_mean_of_their_errors(run: TrainedRun) -> None:
    """Jensen: (mean f - y)^2 <= mean (f - y)^2, by the variance of f."""
    (evaluation,) = evaluate_run(run, Protocol(num_tasks=40, steps=2)).results
    for errors, steps in zip(evaluation.ensemble, evaluation.steps, strict=True):
        assert errors.mse.mean < steps.grid.mse.mean


def test_equal_seeds_have_null_for_a_likelihood_in_json_and_inf_in_the_table(cli: Cli, run: TrainedRun) -> None:
    for values in (*run.meta_params.params.values(), *run.meta_params.rule_params.values()):
        values[:] = values[:1].clone()
    from maml_cli.documents import to_json
    from maml_cli.reporting import print_evaluations

    result = evaluate_run(run, Protocol(num_tasks=20, steps=1))
    (evaluation,) = json.loads(to_json(result.to_document()))["results"]
    assert [step["nll"] for step in evaluation["ensemble"]] == [{"mean": None, "ci95": None}] * 2
    assert [step["coverage"]["mean"] for step in evaluation["ensemble"]] == [0.0, 0.0]
    print_evaluations(result.results, measure="mse", title="equal seeds")


def test_several_seeds_have_a_table_and_one_seed_has_none(cli: Cli, trained: str) -> None:
    run = cli("train", "-c", "smoke", *TINY_RUN, "-q", "-s", "run.seeds=2").out.strip()
    out = cli("eval", run, "--tasks", 20, "--steps", 1).out
    table = out.partition("2 seeds as an ensemble, on the 100-point grid\n")[2].splitlines()
    assert " ".join(table[0].split()) == "step MSE of the mean NLL per point in the 90 % band"
    assert table[2].startswith("1*") and table[2].endswith("%") and max(map(len, table)) <= 80
    document = json.loads(cli("eval", run, "--tasks", 20, "--steps", 1, "--json").out)["results"][0]
    assert [step["step"] for step in document["ensemble"]] == [0, 1]
    assert float(table[2].split()[1]) == pytest.approx(document["ensemble"][1]["mse"]["mean"], rel=1e-3)
    single = cli("eval", trained, "--tasks", 20)
    assert "ensemble" not in single.out and "ensemble" not in cli("eval", trained, "--tasks", 20, "--json").out


def test_the_band_has_ninety_percent_of_a_normal_distribution() -> None:
    assert scipy.stats.norm.cdf(NORMAL_QUANTILE_95) == pytest.approx(0.95, abs=1e-12)
