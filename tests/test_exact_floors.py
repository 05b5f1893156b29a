"""Exact floors: errors that can be computed without this package, which its evaluations must come out at."""

from typing import Any

import numpy
import pytest

import maml_cli as maml
from maml_cli.config import Config
from maml_cli.evaluation import Protocol, sample_test_tasks, summarise_tasks
from maml_cli.evaluation.task_errors import baseline_errors
from maml_cli.tasks import make_family
from tests.conftest import ROOT


def _variance_factor(num_shots: int, num_draws: int = 400_000) -> float:
    """E[mean over the grid of f(x)^T (F^T F)^-1 f(x)], f = (sin, cos), F the rows of f at K uniform inputs.

    A least-squares fit with noise of variance sigma^2 errs by sigma^2 times it: its weights have the covariance sigma^2
    (F^T F)^-1.
    """

    def features(x: Any) -> Any:
        return numpy.stack([numpy.sin(x), numpy.cos(x)], axis=-1)

    on_grid = features(numpy.linspace(-5, 5, 100))
    design = features(numpy.random.default_rng(0).uniform(-5, 5, (num_draws, num_shots)))
    inverse = numpy.linalg.inv(numpy.einsum("bki,bkj->bij", design, design))
    return float(numpy.einsum("ij,bij->b", on_grid.T @ on_grid / 100, inverse).mean())


@pytest.mark.parametrize(("num_shots", "floors"), [(5, {0.3: 0.0506, 0.1: 0.0056}), (10, {0.3: 0.0203, 0.1: 0.0023})])
def test_least_squares_at_the_true_frequency_errs_by_the_noise_alone(
    num_shots: int, floors: dict[float, float]
) -> None:
    """Finn's family with noise: 0.5626 sigma^2 from five points, 0.2255 sigma^2 from ten.

    From five points a few supports are nearly singular: their factors have a standard deviation of some 0.7, so that
    400,000 of them are within 0.005 and 10,000 tasks within 4 of their own errors.
    """
    factor = _variance_factor(num_shots)
    for noise, floor in floors.items():
        assert noise**2 * factor == pytest.approx(floor, abs=6e-5 if noise == 0.1 else 5e-4)
        family = make_family(dict(Config.model_validate({"tasks": {"noise": noise}}).tasks))
        baseline = family.baselines()["least_squares"]
        assert baseline is not None
        errors = baseline_errors(sample_test_tasks(family, Protocol(), num_shots), "least_squares", baseline)
        mse = summarise_tasks(errors).grid.mse
        assert abs(mse.mean - noise**2 * factor) < 4 * mse.ci95 / 1.96


def test_the_worst_of_the_test_tasks_of_a_published_run_are_those_of_its_rows() -> None:
    """The first seed of finn-10shot: the tail from the errors of single tasks, sorted by plain Python."""
    run = maml.load(ROOT / "outputs" / "published" / "finn-10shot")
    result = maml.evaluate(run, tasks=400, steps=1, per_task=True)
    (evaluation,), rows = result.results, result.per_task()
    for step in 0, 1:
        errors = sorted(row[f"mse_step_{step}"] for row in rows)
        tail = evaluation.steps[step].grid.mse.tail
        assert tail is not None and tail.worst == errors[-1]
        assert tail.worst_10_percent_mean == pytest.approx(sum(errors[-40:]) / 40, rel=1e-12)
        assert tail.worst_1_percent_share == pytest.approx(sum(errors[-4:]) / sum(errors), rel=1e-12)
        assert tail.percentile_90 == pytest.approx(errors[359] + 0.1 * (errors[360] - errors[359]), rel=1e-12)
    worst = max(rows, key=lambda row: row["mse_step_0"])
    assert worst["amplitude"] > 4.5  # the error before adapting grows with the square of the amplitude
