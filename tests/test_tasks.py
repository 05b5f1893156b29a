"""The task families, against exact values; and that no stream of random numbers is shared."""

import math

import pytest
import torch

from maml_cli.tasks import SampledTasks, SineFamily, make_generator
from maml_cli.tasks.sinusoid_baselines import conditional_mean, conditional_median, predict_zero

PI = math.pi
FINN = SineFamily((0.1, 5.0), (1.0, 1.0), (0.0, PI), (0.0, 0.0), (-5.0, 5.0))
FREQUENCY = FINN._replace(frequency=(0.8, 1.2))
LAB = SineFamily((1.0, 1.0), (0.5, 1.0), (0.0, 0.0), (0.0, 0.0), (-2 * PI, 2 * PI))


def _sample(family: SineFamily, *, num_tasks: int = 7, num_support: int = 3, num_query: int = 2) -> SampledTasks:
    return family.sample(
        [make_generator(0, "x")], num_tasks=num_tasks, num_support=num_support, num_query=num_query, dtype=torch.float64
    )


@pytest.mark.parametrize(
    ("family", "answer", "power", "exact"),
    [
        # E[A^2]/2 with A on [0.1, 5]: (125 - 0.001) / (3 * 4.9) / 2.
        (FINN, "zero", 2, (125 - 0.001) / (3 * 4.9) / 2),
        (FREQUENCY, "zero", 2, 4.251667),
        (LAB, "zero", 1, 0.6312763),
        (LAB, "zero", 2, 0.4941105),
        (FINN, "mean", 2, 3.005669),
        (FREQUENCY, "mean", 2, 3.114489),
        (LAB, "mean", 2, 0.1119766),
        (LAB, "median", 1, 0.2343546),
    ],
)
def test_floors_come_out_of_the_sampler(family: SineFamily, answer: str, power: int, exact: float) -> None:
    """Within four standard errors of the mean over 20,000 tasks, about 1 %, of the exact floors."""
    predict = {"zero": predict_zero, "mean": conditional_mean(family), "median": conditional_median(family)}[answer]
    query = _sample(family, num_tasks=20_000, num_query=10).batch.query
    losses = (predict(query.x) - query.y).abs().pow(power).mean(dim=(-2, -1)).flatten()
    standard_error = losses.std().item() / math.sqrt(len(losses))
    assert standard_error < 0.012 * exact
    assert abs(losses.mean().item() - exact) < 4 * standard_error


def test_targets_are_the_documented_function_and_ranges_are_filled() -> None:
    family = SineFamily((1.0, 2.0), (3.0, 4.0), (-1.0, 1.0), (5.0, 6.0), (-7.0, 8.0))
    batch, functions = _sample(family, num_tasks=4000)
    a, w, p, c = functions
    for split in (batch.support, batch.query):
        torch.testing.assert_close(split.y, a * torch.sin(w * split.x - p) + c, rtol=0, atol=1e-12)
    for values, (low, high) in zip((*functions, batch.support.x), family[:5], strict=True):
        assert low <= values.min() and values.max() <= high
        assert values.min() - low < 0.01 * (high - low) and high - values.max() < 0.01 * (high - low)


def test_shapes_are_runs_tasks_points() -> None:
    batch = FINN.sample([make_generator(0, "x"), make_generator(1, "x")], num_tasks=5, num_support=3, num_query=4).batch
    assert batch.support.x.shape == batch.support.y.shape == (2, 5, 3, 1)
    assert batch.query.x.shape == batch.query.y.shape == (2, 5, 4, 1)


def test_each_run_draws_what_it_would_draw_alone() -> None:
    together = FINN.sample([make_generator(0, "x"), make_generator(1, "x")], num_tasks=5, num_support=3, num_query=4)
    alone = FINN.sample([make_generator(1, "x")], num_tasks=5, num_support=3, num_query=4)
    assert torch.equal(together.batch.query.y[1], alone.batch.query.y[0])
    assert not torch.equal(together.batch.query.y[0], alone.batch.query.y[0])


def test_more_points_and_other_precision_leave_the_functions_as_they_are() -> None:
    few, many = _sample(FINN), _sample(FINN, num_support=20)
    single = FINN.sample([make_generator(0, "x")], num_tasks=7, num_support=3, num_query=2, dtype=torch.float32)
    for one, other, third in zip(few.functions, many.functions, single.functions, strict=True):
        assert torch.equal(one, other) and torch.equal(one, third)
    assert torch.equal(few.batch.support.x.float(), single.batch.support.x)


def test_noise_has_its_standard_deviation_on_support_and_query() -> None:
    """Over 40,000 draws the sample deviation is within 4 / sqrt(2 n) = 1.5 % of 0.3."""
    batch, functions = _sample(FINN._replace(noise=0.3), num_tasks=4000, num_support=10, num_query=10)
    for split in batch.support, batch.query:
        noise = split.y - functions(split.x)
        assert abs(noise.std().item() / 0.3 - 1) < 0.015
        assert abs(noise.mean().item()) < 4 * 0.3 / math.sqrt(noise.numel())


def test_streams_depend_on_seed_and_purpose() -> None:
    draws = [
        torch.rand(3, generator=make_generator(s, p)).tolist() for s in (0, 1, 2**62) for p in ("tasks", "test", "init")
    ]
    assert len({tuple(draw) for draw in draws}) == 9
    assert torch.rand(3, generator=make_generator(0, "tasks")).tolist() == draws[0]


def test_stratified_query_points_are_one_in_each_part_and_the_support_stays_as_it_was() -> None:
    options = {"num_tasks": 50, "num_support": 3, "num_query": 4, "dtype": torch.float64}
    plain, spread = (FINN.sample([make_generator(0, "x")], stratified=s, **options) for s in (False, True))  # type: ignore[arg-type]
    assert torch.equal(plain.batch.support.x, spread.batch.support.x)
    low, high = FINN.x
    parts = ((spread.batch.query.x - low) / (high - low) * 4).floor()[..., 0]
    assert torch.equal(parts, torch.arange(4.0, dtype=torch.float64).expand(1, 50, 4))
    torch.testing.assert_close(spread.batch.query.y, spread.functions(spread.batch.query.x))
    within = (spread.batch.query.x - low) / (high - low) * 4 - parts.unsqueeze(-1)
    assert 0.4 < within.mean() < 0.6 and within.std() > 0.2
