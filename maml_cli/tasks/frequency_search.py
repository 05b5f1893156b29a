"""The frequency of a sinusoid that fits the support points of a task best: a grid search, then golden sections.

Amplitude, phase and offset are solved for at each frequency (variable projection, Golub and Pereyra 1973), so that the
residual is a function of the frequency alone.

Shapes: R runs, B tasks, K points, F frequencies; everything in float64.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from maml_cli.core import Points
from maml_cli.tasks.linear_fit import linear_problem, num_unknowns, width
from maml_cli.tasks.sinusoids import SineRanges

Criterion = Callable[[Tensor], Tensor]
"""Frequencies (..., R, B, 1, 1) -> the least residual sum of squares at each, of the same shape."""

RESOLUTION = 32
"""Frequencies of the grid to each pi / (range of x), which is the resolution of frequencies on that range."""
MAX_FREQUENCIES = 2**16
"""Frequencies of the largest grid: 1,000 waves more or fewer over the range of x. Wider ranges have a coarser grid."""
NUM_COLUMNS = 64
"""Columns of the grid of frequencies, of which each row starts at a frequency computed anew."""
MAX_VALUES = 2**22
"""Values of an intermediate result: 32 MiB. Larger problems are searched some tasks or frequencies at a time."""
RIDGE = 1e-12
"""Relative ridge of the normal equations, for frequencies at which the columns are linearly dependent."""


def num_frequencies(family: SineRanges) -> float:
    """The size of the grid of frequencies for a family; a whole number, or infinity."""
    waves = RESOLUTION * width(family.frequency) * width(family.x) / math.pi
    return 65 + math.ceil(waves) if math.isfinite(waves) else math.inf


def best_frequency(family: SineRanges, support: Points, *, num_starts: int = 8, num_halvings: int = 60) -> Tensor:
    """The frequency (R, B, 1, 1) in the family's range with the least residual sum of squares on the support points.

    Golden-section search around each of the `num_starts` best local minima on a grid of frequencies. With few points
    several frequencies may fit equally well. Memory is bounded whatever the number of tasks, points and frequencies.
    """
    num_tasks, num_points = support.x.shape[1:3]
    grid = torch.linspace(*family.frequency, int(min(num_frequencies(family), MAX_FREQUENCIES)), dtype=support.x.dtype)
    size = max(1, min(MAX_VALUES // len(grid), MAX_VALUES // (num_starts * num_points)))
    slices = [Points(*(tensor[:, i : i + size] for tensor in support)) for i in range(0, num_tasks, size)]
    return torch.cat(
        [_search(family, points, grid, num_starts=num_starts, num_halvings=num_halvings) for points in slices], dim=1
    )


def _search(family: SineRanges, support: Points, grid: Tensor, *, num_starts: int, num_halvings: int) -> Tensor:
    criterion = _criterion(family, support)
    errors = _errors_on_grid(family, support, grid, criterion)
    edge = torch.full_like(errors[..., :1], math.inf)
    neighbours = torch.minimum(torch.cat([edge, errors[..., :-1]], dim=-1), torch.cat([errors[..., 1:], edge], dim=-1))
    minima = errors.where(errors <= neighbours, math.inf)
    best = minima.topk(min(num_starts, len(grid)), dim=-1, largest=False).indices.movedim(-1, 0)[..., None, None]
    a, b = (grid[(best + side).clamp(0, len(grid) - 1)] for side in (-1, 1))
    shrink = (math.sqrt(5) - 1) / 2
    for _ in range(num_halvings):
        lower, upper = b - shrink * (b - a), a + shrink * (b - a)
        left = criterion(lower) < criterion(upper)
        a, b = torch.where(left, a, lower), torch.where(left, upper, b)
    candidates = (a + b) / 2
    return candidates.gather(0, criterion(candidates).argmin(dim=0, keepdim=True)).squeeze(0)


def _criterion(family: SineRanges, support: Points) -> Criterion:
    """The residual sum of squares from ridged normal equations: accurate enough to rank frequencies."""
    features, targets = linear_problem(family, support)

    def residual_sum_of_squares(frequency: Tensor) -> Tensor:
        matrix = features(support.x, frequency)
        gram = matrix.mT @ matrix
        ridge = RIDGE * torch.eye(gram.shape[-1], dtype=gram.dtype) * support.x.shape[-2]
        weights = torch.linalg.solve(gram + ridge, matrix.mT @ targets)
        errors: Tensor = targets - matrix @ weights
        return errors.square().sum(dim=-2, keepdim=True)

    return residual_sum_of_squares


def _errors_on_grid(family: SineRanges, support: Points, grid: Tensor, criterion: Criterion) -> Tensor:
    """The residual sum of squares at each frequency of `grid` (F,), an arithmetic sequence: (R, B, F)."""
    num_points = support.x.shape[-2]
    if num_points <= num_unknowns(family) + 1:  # many frequencies fit exactly: the criterion ranks what rounding leaves
        size = max(1, MAX_VALUES // (support.x.numel() * 16))
        return torch.cat([criterion(part.view(-1, 1, 1, 1, 1)) for part in torch.split(grid, size)]).movedim(0, -1)[
            ..., 0, 0, :
        ]
    return _errors_by_sums(linear_problem(family, support)[1], support.x, grid, has_offset=num_unknowns(family) == 3)


def _errors_by_sums(targets: Tensor, x: Tensor, grid: Tensor, *, has_offset: bool) -> Tensor:
    """The residual sums of squares in closed form, from sums over the points of exp(iwx), y exp(iwx) and exp(2iwx).

    Frequencies in rows of NUM_COLUMNS: w = row + column, so that exp(iwx) is a product, and the sums over the points
    are products of matrices. Accurate to 1e-14 of the sum of squares of the targets.
    """
    count, step = len(grid), (grid[-1] - grid[0]) / max(1, len(grid) - 1)
    columns = torch.arange(NUM_COLUMNS, dtype=x.dtype) * step
    starts = grid[0] + torch.arange(0, count, NUM_COLUMNS, dtype=x.dtype) * step
    at_columns = torch.exp(1j * x * columns)  # (R, B, K, columns)
    rows_at_once = max(1, 2 * MAX_VALUES // (x.numel() * NUM_COLUMNS))
    errors = []
    for rows in torch.split(starts, rows_at_once):
        at_rows = torch.exp(1j * x * rows).mT  # (R, B, rows, K)
        weighted = (at_rows * targets.mT) @ at_columns
        squared = (at_rows * at_rows) @ (at_columns * at_columns)
        plain = at_rows @ at_columns if has_offset else None
        errors.append(_residuals(targets, squared, weighted, plain, x.shape[-2]).flatten(-2))
    return torch.cat(errors, dim=-1)[..., :count]


def _residuals(targets: Tensor, squared: Tensor, weighted: Tensor, plain: Tensor | None, num_points: int) -> Tensor:
    """The least residual sum of squares by Cramer's rule, from the sums over points, complex (R, B, rows, columns).

    squared: of exp(2iwx). weighted: of y exp(iwx). plain: of exp(iwx), None without an offset, which is eliminated.
    """
    ridge = RIDGE * num_points
    sin_sin, cos_cos = (num_points - squared.real) / 2 + ridge, (num_points + squared.real) / 2 + ridge
    sin_cos, sin_y, cos_y = squared.imag / 2, weighted.imag, weighted.real
    total = targets.square().sum(dim=-2, keepdim=True)
    if plain is not None:
        sin, cos, y = plain.imag, plain.real, targets.sum(dim=-2, keepdim=True)
        count = num_points + ridge
        sin_sin, cos_cos, sin_cos = (
            sin_sin - sin * sin / count,
            cos_cos - cos * cos / count,
            sin_cos - sin * cos / count,
        )
        sin_y, cos_y, total = sin_y - sin * y / count, cos_y - cos * y / count, total - y * y / count
    determinant = sin_sin * cos_cos - sin_cos * sin_cos
    return total - (cos_cos * sin_y.square() - 2 * sin_cos * sin_y * cos_y + sin_sin * cos_y.square()) / determinant
