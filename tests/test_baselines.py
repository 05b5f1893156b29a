"""The baselines, against quadrature and brute force in numpy."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from maml_cli.core import Points
from maml_cli.tasks import Approximation, SineFamily, frequency_search, make_generator
from maml_cli.tasks.frequency_search import best_frequency, num_frequencies
from maml_cli.tasks.sinusoid_baselines import (
    best_nonadaptive_error,
    conditional_mean,
    conditional_median,
    least_squares,
)

FAMILY = SineFamily((0.5, 2.0), (0.7, 1.9), (-0.4, 2.0), (-1.0, 3.0), (-4.0, 6.0))
X = torch.linspace(-4, 6, 9, dtype=torch.float64).reshape(1, 1, 9, 1)


def test_conditional_mean_of_finn_is_a_cosine() -> None:
    family = SineFamily((0.1, 5.0), (1.0, 1.0), (0.0, math.pi), (0.0, 0.0), (-5.0, 5.0))
    torch.testing.assert_close(conditional_mean(family)(X), -(2 * 2.55 / math.pi) * torch.cos(X), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "measure", "exact"),
    [
        ({}, "mse", 3.005669),
        ({"frequency": (0.8, 1.2)}, "mse", 3.114489),
        (
            {"amplitude": (1.0, 1.0), "frequency": (0.5, 1.0), "phase": (0.0, 0.0), "x": (-2 * math.pi, 2 * math.pi)},
            "mse",
            0.1119766,
        ),
        (
            {"amplitude": (1.0, 1.0), "frequency": (0.5, 1.0), "phase": (0.0, 0.0), "x": (-2 * math.pi, 2 * math.pi)},
            "mae",
            0.2343546,
        ),
    ],
)
def test_the_least_error_without_adapting_is_exact_to_half_a_per_cent(
    changes: dict[str, Any], measure: str, exact: float
) -> None:
    """Exact values by quadrature; 4,096 Sobol points and 501 inputs come within half a per cent."""
    family = SineFamily((0.1, 5.0), (1.0, 1.0), (0.0, math.pi), (0.0, 0.0), (-5.0, 5.0))._replace(**changes)
    assert best_nonadaptive_error(family, measure) == pytest.approx(exact, rel=5e-3)
    assert family.best_nonadaptive_error(measure) == best_nonadaptive_error(family, measure)


def test_conditional_mean_is_the_integral_over_frequency_and_phase() -> None:
    nodes, weights = np.polynomial.legendre.leggauss(60)
    frequency, phase = (low + (high - low) * (nodes + 1) / 2 for low, high in (FAMILY.frequency, FAMILY.phase))
    waves = np.sin(frequency[:, None, None] * X.numpy().ravel() - phase[None, :, None])
    expected = 1.25 * np.einsum("i,j,ijx->x", weights / 2, weights / 2, waves) + 1.0
    np.testing.assert_allclose(conditional_mean(FAMILY)(X).numpy().ravel(), expected, rtol=0, atol=1e-12)


def test_conditional_median_is_the_median_of_many_draws() -> None:
    """Medians of 100,000 draws scatter by up to 0.015, where the density is low, medians of 4,096 Sobol points by
    0.03; a wrong parameter or range moves them by tenths."""
    draws = FAMILY.sampler.sample([make_generator(0, "x")], num_tasks=100_000, num_support=1, num_query=1).functions(X)
    expected = draws[0, :, :, 0].median(dim=0).values
    torch.testing.assert_close(conditional_median(FAMILY)(X).ravel(), expected, rtol=0, atol=0.06)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (2.5, 2.5), (-1.0, 3.0)])
def test_least_squares_is_exact_from_as_many_points_as_unknowns(offset: tuple[float, float]) -> None:
    """Two unknowns with a known offset, three without; rounding is magnified where points nearly coincide."""
    family = FAMILY._replace(offset=offset)
    num_support = 2 if offset[0] == offset[1] else 3
    sampled = family.sampler.sample(
        [make_generator(0, "x")], num_tasks=50, num_support=num_support, num_query=20, dtype=torch.float64
    )
    predict = least_squares(family, sampled.batch.support, sampled.functions.frequency)
    assert (predict(sampled.batch.query.x) - sampled.batch.query.y).abs().median().item() < 1e-12


def test_least_squares_agrees_with_numpy_when_noisy() -> None:
    family = FAMILY._replace(offset=(0.0, 0.0), noise=0.5)
    sampled = family.sampler.sample(
        [make_generator(0, "x")], num_tasks=3, num_support=8, num_query=4, dtype=torch.float64
    )
    predictions = least_squares(family, sampled.batch.support, sampled.functions.frequency)(sampled.batch.query.x)
    for task in range(3):
        w, x, y = (
            sampled.functions.frequency[0, task].item(),
            sampled.batch.support.x[0, task].numpy(),
            sampled.batch.support.y[0, task].numpy(),
        )
        solution = np.linalg.lstsq(np.hstack([np.sin(w * x), np.cos(w * x)]), y, rcond=None)[0]
        query = sampled.batch.query.x[0, task].numpy()
        np.testing.assert_allclose(
            predictions[0, task], np.hstack([np.sin(w * query), np.cos(w * query)]) @ solution, atol=1e-10
        )


def test_least_squares_from_one_point_passes_through_it_with_the_least_norm() -> None:
    """With a sin(x) + b cos(x) = y at one x, the least (a, b) is y (sin x, cos x): the fit y cos(x' - x)."""
    family = FAMILY._replace(offset=(0.0, 0.0), frequency=(1.0, 1.0))
    sampled = family.sampler.sample(
        [make_generator(0, "x")], num_tasks=5, num_support=1, num_query=4, dtype=torch.float64
    )
    expected = sampled.batch.support.y * torch.cos(sampled.batch.query.x - sampled.batch.support.x)
    predictions = least_squares(family, Points(*sampled.batch.support), sampled.functions.frequency)(
        sampled.batch.query.x
    )
    torch.testing.assert_close(predictions, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("offset", [(0.5, 0.5), (-1.0, 3.0)])
def test_the_best_frequency_has_the_least_residual_of_a_fine_grid(offset: tuple[float, float]) -> None:
    """With noise; against numpy's least squares at each of 2,001 frequencies."""
    family = FAMILY._replace(offset=offset, frequency=(0.8, 1.2), noise=0.3)
    support = family.sampler.sample(
        [make_generator(0, "x")], num_tasks=6, num_support=8, num_query=1, dtype=torch.float64
    ).batch.support
    frequency = best_frequency(family, support)
    assert frequency.shape == (1, 6, 1, 1) and bool(((frequency >= 0.8) & (frequency <= 1.2)).all())

    def residual_sum_of_squares(w: float, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> float:
        columns = [np.sin(w * x), np.cos(w * x)] + ([np.ones_like(x)] if offset[0] < offset[1] else [])
        y = y if offset[0] < offset[1] else y - 0.5
        matrix = np.hstack(columns)
        return float(((y - matrix @ np.linalg.lstsq(matrix, y, rcond=None)[0]) ** 2).sum())

    for task in range(6):
        x, y = support.x[0, task].numpy(), support.y[0, task].numpy()
        least = min(residual_sum_of_squares(w, x, y) for w in np.linspace(0.8, 1.2, 2001))
        assert residual_sum_of_squares(frequency[0, task].item(), x, y) <= least + 1e-9


def test_the_best_frequency_from_ten_noise_free_points_is_that_of_the_task() -> None:
    family = FAMILY._replace(offset=(0.0, 0.0), frequency=(0.8, 1.2), amplitude=(1.0, 5.0))
    sampled = family.sampler.sample(
        [make_generator(0, "x")], num_tasks=200, num_support=10, num_query=1, dtype=torch.float64
    )
    distance = (best_frequency(family, sampled.batch.support) - sampled.functions.frequency).abs()
    assert distance.max().item() < 1e-6


@pytest.mark.parametrize("frequency", [(0.8, 1.2), (0.1, 50.0)])
def test_from_five_points_without_noise_some_frequency_fits_them_all(frequency: tuple[float, float]) -> None:
    """Also where the range holds many waves: the least of several local minima, not the first."""
    family = FAMILY._replace(offset=(0.0, 0.0), frequency=frequency, amplitude=(1.0, 5.0))
    support = family.sampler.sample(
        [make_generator(3, "x")], num_tasks=500, num_support=5, num_query=1, dtype=torch.float64
    ).batch.support
    fitted = least_squares(family, support, best_frequency(family, support))
    assert (fitted(support.x) - support.y).abs().max().item() < 1e-6


def test_the_grid_of_frequencies_finds_narrow_minima() -> None:
    """Five noise-free points of each of 300 tasks are fitted exactly, by a frequency in a basin that a coarse grid may
    miss: a grid of a quarter of the points leaves a residual."""
    family = SineFamily((1.0, 2.0), (0.1, 20.0), (0.0, 3.0), (0.0, 0.0), (-5.0, 5.0))
    support = family.sampler.sample(
        [make_generator(0, "x")], num_tasks=300, num_support=5, num_query=1, dtype=torch.float64
    ).batch.support
    predict = least_squares(family, support, best_frequency(family, support))
    assert (predict(support.x) - support.y).square().sum(dim=-2).max().item() < 1e-8


def test_a_wide_range_of_frequencies_is_searched_and_a_wider_one_on_a_coarser_grid() -> None:
    """65 + 32 * 10 * width / pi frequencies: 10,251 for [0, 100]; more than 2 ** 16 from a width of 643 on."""
    family = SineFamily((1.0, 2.0), (0.0, 100.0), (0.0, 3.0), (0.0, 0.0), (-5.0, 5.0))
    assert num_frequencies(family) == 10_251
    sampled = family.sampler.sample(
        [make_generator(0, "x")], num_tasks=20, num_support=20, num_query=1, dtype=torch.float64
    )
    distance = (best_frequency(family, sampled.batch.support) - sampled.functions.frequency).abs()
    assert distance.max().item() < 1e-6
    exact, coarse = (
        family._replace(frequency=(0.0, high)).baselines()["least_squares_any_frequency"] for high in (642.0, 643.0)
    )
    assert isinstance(coarse, Approximation) and not isinstance(exact, Approximation)
    assert "searched at 65,536 of the 65,561 frequencies" in coarse.note


def test_beyond_the_limit_the_search_has_a_coarser_grid_and_the_table_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of 65 with steps of 1.6, where lobes are 2 pi / 10 wide: the frequencies of most tasks are missed."""
    family = SineFamily((1.0, 2.0), (0.0, 100.0), (0.0, 3.0), (0.0, 0.0), (-5.0, 5.0))
    sampled = family.sampler.sample(
        [make_generator(0, "x")], num_tasks=20, num_support=20, num_query=1, dtype=torch.float64
    )
    monkeypatch.setattr(frequency_search, "MAX_FREQUENCIES", 65)
    frequencies = best_frequency(family, sampled.batch.support)
    assert frequencies.shape == (1, 20, 1, 1) and frequencies.min() >= 0 and frequencies.max() <= 100
    distance = (frequencies - sampled.functions.frequency).abs()
    assert (distance > 1e-3).sum().item() > 10


@pytest.mark.parametrize("offset", [(0.0, 0.0), (-1.0, 3.0)])
def test_the_residuals_on_the_grid_are_those_of_the_criterion(offset: tuple[float, float]) -> None:
    """By sums of complex exponentials, and by solving the normal equations at each frequency; in rows of 64."""
    family = FAMILY._replace(offset=offset, noise=0.3)
    support = family.sampler.sample(
        [make_generator(0, "x")], num_tasks=3, num_support=8, num_query=1, dtype=torch.float64
    ).batch.support
    grid = torch.linspace(0.7, 1.9, 150, dtype=torch.float64)
    criterion = frequency_search._criterion(family, support)
    expected = torch.stack([criterion(frequency.view(1, 1, 1, 1))[..., 0, 0] for frequency in grid], dim=-1)
    actual = frequency_search._errors_on_grid(family, support, grid, criterion)
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-9)
