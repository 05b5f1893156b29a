"""The task families: against exact values, by properties of the sampler, and by pinned streams of random numbers."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maml_cli.config import Config
from maml_cli.core import Points, TaskBatch
from maml_cli.tasks import SampledTasks, SineFamily, make_family, make_generator
from maml_cli.tasks.sinusoid_baselines import conditional_mean, conditional_median, predict_zero

GOLDEN = Path(__file__).parent / "golden" / "streams.json"
PI = math.pi
FINN = SineFamily((0.1, 5.0), (1.0, 1.0), (0.0, PI), (0.0, 0.0), (-5.0, 5.0))
FREQUENCY = FINN._replace(frequency=(0.8, 1.2))
LAB = SineFamily((1.0, 1.0), (0.5, 1.0), (0.0, 0.0), (0.0, 0.0), (-2 * PI, 2 * PI))
ANY = SineFamily((0.1, 5.0), (0.5, 2.0), (0.0, PI), (-1.0, 1.0), (-5.0, 5.0))
SIZES = st.integers(min_value=1, max_value=5)

properties = settings(max_examples=50)


def _sample(family: SineFamily, *, num_tasks: int = 7, num_support: int = 3, num_query: int = 2) -> SampledTasks:
    return family.sampler.sample(
        [make_generator(0, "x")], num_tasks=num_tasks, num_support=num_support, num_query=num_query, dtype=torch.float64
    )


@pytest.mark.parametrize(
    ("family", "baseline", "power", "exact"),
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
def test_exact_floors_are_the_means_over_sampled_tasks(
    family: SineFamily, baseline: str, power: int, exact: float
) -> None:
    """Within four standard errors of the mean over 20,000 tasks, about 1 %, of the exact floors."""
    predict = {"zero": predict_zero, "mean": conditional_mean(family), "median": conditional_median(family)}[baseline]
    query = _sample(family, num_tasks=20_000, num_query=10).batch.query
    losses = (predict(query.x) - query.y).abs().pow(power).mean(dim=(-2, -1)).flatten()
    standard_error = losses.std().item() / math.sqrt(len(losses))
    assert standard_error < 0.012 * exact
    assert abs(losses.mean().item() - exact) < 4 * standard_error


def test_targets_are_the_documented_function_and_ranges_are_filled() -> None:
    family = SineFamily((1.0, 2.0), (3.0, 4.0), (-1.0, 1.0), (5.0, 6.0), (-7.0, 8.0))
    batch, functions = _sample(family, num_tasks=4000)
    a, w, p, c = functions
    for points in (batch.support, batch.query):
        torch.testing.assert_close(points.y, a * torch.sin(w * points.x - p) + c, rtol=0, atol=1e-12)
    for values, (low, high) in zip((*functions, batch.support.x), family[:5], strict=True):
        assert low <= values.min() and values.max() <= high
        assert values.min() - low < 0.01 * (high - low) and high - values.max() < 0.01 * (high - low)


def test_sampled_points_have_shape_runs_tasks_points_one() -> None:
    batch = FINN.sampler.sample(
        [make_generator(0, "x"), make_generator(1, "x")], num_tasks=5, num_support=3, num_query=4
    ).batch
    assert batch.support.x.shape == batch.support.y.shape == (2, 5, 3, 1)
    assert batch.query.x.shape == batch.query.y.shape == (2, 5, 4, 1)


def test_each_run_has_the_tasks_that_it_has_alone() -> None:
    together = FINN.sampler.sample(
        [make_generator(0, "x"), make_generator(1, "x")], num_tasks=5, num_support=3, num_query=4
    )
    alone = FINN.sampler.sample([make_generator(1, "x")], num_tasks=5, num_support=3, num_query=4)
    assert torch.equal(together.batch.query.y[1], alone.batch.query.y[0])
    assert not torch.equal(together.batch.query.y[0], alone.batch.query.y[0])


def test_functions_depend_neither_on_the_number_of_points_nor_on_the_precision() -> None:
    few, many = _sample(FINN), _sample(FINN, num_support=20)
    single = FINN.sampler.sample([make_generator(0, "x")], num_tasks=7, num_support=3, num_query=2, dtype=torch.float32)
    for parameter, *equal_parameters in zip(few.functions, many.functions, single.functions, strict=True):
        assert all(torch.equal(parameter, value) for value in equal_parameters)
    assert torch.equal(few.batch.support.x.float(), single.batch.support.x)


def test_noise_has_its_standard_deviation_on_support_and_query() -> None:
    """Over 40,000 draws the sample deviation is within 4 / sqrt(2 n) = 1.5 % of 0.3."""
    batch, functions = _sample(FINN._replace(noise=0.3), num_tasks=4000, num_support=10, num_query=10)
    for points in batch.support, batch.query:
        noise = points.y - functions(points.x)
        assert abs(noise.std().item() / 0.3 - 1) < 0.015
        assert abs(noise.mean().item()) < 4 * 0.3 / math.sqrt(noise.numel())


def test_streams_depend_on_seed_and_purpose() -> None:
    draws = [
        torch.rand(3, generator=make_generator(s, p)).tolist() for s in (0, 1, 2**62) for p in ("tasks", "test", "init")
    ]
    assert len({tuple(draw) for draw in draws}) == 9
    assert torch.rand(3, generator=make_generator(0, "tasks")).tolist() == draws[0]


def test_stratified_query_points_are_one_in_each_stratum_and_the_support_is_the_same() -> None:
    options: dict[str, Any] = {"num_tasks": 50, "num_support": 3, "num_query": 4, "dtype": torch.float64}
    uniform, stratified = (
        FINN.sampler.sample([make_generator(0, "x")], stratified=s, **options) for s in (False, True)
    )
    assert torch.equal(uniform.batch.support.x, stratified.batch.support.x)
    low, high = FINN.x
    strata = ((stratified.batch.query.x - low) / (high - low) * 4).floor()[..., 0]
    assert torch.equal(strata, torch.arange(4.0, dtype=torch.float64).expand(1, 50, 4))
    torch.testing.assert_close(stratified.batch.query.y, stratified.functions(stratified.batch.query.x))
    within = (stratified.batch.query.x - low) / (high - low) * 4 - strata.unsqueeze(-1)
    assert 0.4 < within.mean() < 0.6 and within.std() > 0.2


@properties
@given(
    steps=SIZES,
    runs=SIZES,
    tasks=SIZES,
    support=SIZES,
    query=SIZES,
    noise=st.sampled_from([0.0, 0.3]),
    many=st.booleans(),
)
def test_several_outer_steps_at_once_are_the_tasks_of_one_after_the_other(
    steps: int, runs: int, tasks: int, support: int, query: int, noise: float, many: bool
) -> None:
    family, num_tasks = ANY._replace(noise=noise), tasks * (10 if many else 1)
    sizes: dict[str, Any] = {"num_tasks": num_tasks, "num_support": support, "num_query": query}
    together = family.sampler.sample(
        [make_generator(seed, "x") for seed in range(runs)], num_steps=steps, **sizes
    ).batch
    generators = [make_generator(seed, "x") for seed in range(runs)]
    for batch in together.iter_steps():
        assert _equal(batch, family.sampler.sample(generators, **sizes).batch)


@properties
@given(first_k=SIZES, second_k=SIZES, seed=st.integers(0, 2**62))
def test_the_functions_are_the_same_for_every_k(first_k: int, second_k: int, seed: int) -> None:
    first, second = (
        ANY.sampler.sample([make_generator(seed, "x")], num_tasks=3, num_support=k, num_query=k).functions
        for k in (first_k, second_k)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@properties
@given(seeds=st.lists(st.integers(0, 2**62), min_size=1, max_size=4), data=st.data())
def test_the_order_of_runs_is_the_order_of_their_generators(seeds: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(seeds))))
    sizes: dict[str, Any] = {"num_tasks": 3, "num_support": 2, "num_query": 1}
    batch = ANY.sampler.sample([make_generator(seed, "x") for seed in seeds], **sizes).batch
    permuted = ANY.sampler.sample([make_generator(seeds[index], "x") for index in order], **sizes).batch
    assert _equal(permuted, TaskBatch(*(Points(*(t[list(order)] for t in points)) for points in batch)))


@properties
@given(steps=SIZES, runs=st.lists(SIZES, min_size=1, max_size=3))
def test_concatenated_runs_and_steps_are_taken_apart_again(steps: int, runs: list[int]) -> None:
    sizes: dict[str, Any] = {"num_tasks": 3, "num_support": 2, "num_query": 1, "num_steps": steps}
    batches = [
        ANY.sampler.sample([make_generator(seed, str(index)) for seed in range(count)], **sizes).batch
        for index, count in enumerate(runs)
    ]
    together = TaskBatch.concat_runs(batches)
    assert together.support.x.shape == (steps, sum(runs), 3, 2, 1)
    start = 0
    for batch, count in zip(batches, runs, strict=True):
        part = TaskBatch(*(Points(*(t[:, start : start + count] for t in points)) for points in together))
        assert _equal(part, batch)
        start += count
    for index, batch in enumerate(together.iter_steps()):
        assert _equal(batch, together.step(index))
    assert torch.equal(torch.stack([batch.query.y for batch in together.iter_steps()]), together.query.y)


def test_the_streams_of_random_numbers_are_pinned() -> None:
    """A changed stream would change every training and every result; these were drawn once with torch 2.13."""
    golden = json.loads(GOLDEN.read_text())
    for stream in golden["streams"]:
        generator = make_generator(stream["seed"], stream["purpose"])
        assert torch.rand(3, generator=generator, dtype=torch.float64).tolist() == stream["uniform"]
        assert torch.randn(3, generator=generator, dtype=torch.float64).tolist() == stream["normal"]
    sample = golden["sample"]
    family = SineFamily(*sample["family"])
    batch, functions = family.sampler.sample(
        [make_generator(sample["seed"], "tasks")], num_tasks=2, num_support=2, num_query=1, dtype=torch.float64
    )
    for name, tensor in functions._asdict().items():
        assert tensor.flatten().tolist() == sample[name], name
    for points, tensor in (("support", "x"), ("support", "y"), ("query", "x"), ("query", "y")):
        actual = getattr(getattr(batch, points), tensor).flatten().tolist()
        # The sine of another processor may differ in its last digit.
        assert actual == (
            sample[f"{points}_{tensor}"] if tensor == "x" else pytest.approx(sample[f"{points}_y"], abs=1e-13)
        )


def test_sinusoids_are_made_of_the_keys_of_the_config() -> None:
    tasks = Config.model_validate({"tasks": {"phase": [1, 2]}}).tasks
    assert make_family(dict(tasks)) == FINN._replace(phase=(1.0, 2.0))


def _equal(first: TaskBatch, second: TaskBatch) -> bool:
    return all(torch.equal(a, b) for p, q in zip(first, second, strict=True) for a, b in zip(p, q, strict=True))
