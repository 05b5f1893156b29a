"""Statistics of errors over tasks and seeds, against hand calculation and published tables."""

import math

import pytest
import torch

from maml_cli.evaluation import PointErrors, statistic, summarise_tasks, t_interval
from maml_cli.evaluation.statistics import aggregate_seeds, student_t, summarise_runs


def test_the_statistic_of_four_numbers_is_their_mean_interval_and_median() -> None:
    """Of 1, 2, 3, 10: mean 4, deviation sqrt(50 / 3), median 2.5."""
    value = statistic(torch.tensor([3.0, 1.0, 10.0, 2.0]))
    assert value[:3] == pytest.approx((4.0, 1.96 * math.sqrt(50 / 3) / 2, 2.5)) and value.ci95_seeds is None
    assert statistic(torch.tensor([5.0, 1.0, 2.0])).median == 2.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_error_that_overflows_makes_the_mean_infinite_but_not_the_median(bad: float) -> None:
    value = statistic(torch.tensor([1.0, bad, 2.0, 3.0]))
    assert value.mean == math.inf and math.isnan(value.ci95) and value.median == 2.5


@pytest.mark.parametrize(
    ("degrees_of_freedom", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)],
)
def test_quantiles_of_student_t_are_those_of_the_tables(degrees_of_freedom: int, quantile: float) -> None:
    """Two-sided 95 % points, to the four decimals of NIST/SEMATECH e-Handbook 1.3.6.7.2 and others."""
    assert student_t(degrees_of_freedom) == pytest.approx(quantile, abs=5e-5)


def test_intervals_over_seeds_are_student_s() -> None:
    """Of 1, 2, 6: mean 3, deviation sqrt(7), t with 2 degrees of freedom 4.3027."""
    assert t_interval([1.0, 2.0, 6.0]) == pytest.approx(4.3027 * math.sqrt(7 / 3), rel=1e-4)
    assert t_interval([5.0]) == 0.0 and t_interval([1.0, math.inf]) == math.inf


def test_several_seeds_have_an_interval_over_tasks_and_an_interval_over_seeds() -> None:
    """Seeds (rows) with means 1, 2, 6 and medians 0, 2, 6; means of tasks over seeds 2, 3, 4: deviation 1."""
    errors = torch.tensor([[0.0, 0.0, 3.0], [1.0, 2.0, 3.0], [5.0, 7.0, 6.0]])
    value = aggregate_seeds(errors)
    assert (value.mean, value.median) == pytest.approx((3.0, 8 / 3))
    assert value.ci95 == pytest.approx(1.96 / math.sqrt(3))
    assert value.ci95_seeds == pytest.approx(4.3027 * math.sqrt(7 / 3), rel=1e-4)
    assert aggregate_seeds(errors[:1]) == statistic(errors[0])


def test_a_summary_has_one_statistic_for_each_points_and_measure_over_the_runs_given() -> None:
    """Two runs, three tasks with equal errors: 10 for the run, plus 1 for the measure, plus 100 for the points."""
    numbers = torch.tensor([[0.0, 1.0], [10.0, 11.0]]).reshape(2, 1, 2).expand(2, 3, 2)
    errors = {name: numbers + 100 * index for index, name in enumerate(PointErrors._fields)}
    second = summarise_tasks(errors, run=1)
    assert [value.mean for point in second for value in point] == [10, 11, 110, 111, 210, 211]
    both = summarise_runs(errors, [0, 1])
    assert [value.mean for point in both for value in point] == [5, 6, 105, 106, 205, 206]
