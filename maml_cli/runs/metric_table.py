"""The log of a training as a tidy table: a row for each outer step, seed and quantity."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from maml_cli.runs.metrics import ERRORS, Log


class MetricRow(NamedTuple):
    """A number of the log.

    step: outer steps taken.
    seed: of the run.
    quantity: `loss`, `grad_norm`, `skipped_tasks`; `alpha` or `alpha_grad` and a key, as in `alpha.head`; or an error
        on validation tasks, `grid_mse`, `grid_mae`, `query_mse` or `query_mae`.
    inner_step: of an alpha the inner step from 0, of an error the inner steps before it; None for others.
    value: the number; None for runs that diverged.
    """

    step: int
    seed: int
    quantity: str
    inner_step: int | None
    value: float | None


METRIC_COLUMNS = MetricRow._fields
"""The columns of the table."""


def metric_rows(log: Log, seeds: Sequence[int]) -> Iterator[MetricRow]:
    """The rows of `log`, losses first, each in the order of outer steps; `seeds` are those of its runs."""
    for record in log.losses:
        by_run = {"loss": record.loss, "grad_norm": record.grad_norm, "skipped_tasks": record.skipped_tasks or []}
        for quantity, values in by_run.items():
            for seed, value in zip(seeds, values, strict=False):
                yield _row(record.step, seed, quantity, None, value)
        for quantity, by_key in {"alpha": record.alpha, "alpha_grad": record.alpha_grad}.items():
            for key, runs in by_key.items():
                yield from _by_inner_step(record.step, seeds, f"{quantity}.{key}", runs)
    for evaluation in log.evaluations:
        for quantity in ERRORS:
            yield from _by_inner_step(evaluation.step, seeds, quantity, getattr(evaluation, quantity))


def _by_inner_step(
    step: int, seeds: Sequence[int], quantity: str, runs: Sequence[Sequence[float]]
) -> Iterator[MetricRow]:
    for seed, values in zip(seeds, runs, strict=True):
        yield from (_row(step, seed, quantity, inner_step, value) for inner_step, value in enumerate(values))


def _row(step: int, seed: int, quantity: str, inner_step: int | None, value: float) -> MetricRow:
    return MetricRow(step, seed, quantity, inner_step, value if math.isfinite(value) else None)
