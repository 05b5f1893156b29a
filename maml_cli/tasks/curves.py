"""Curves of the user's own: read from a table, split into training, validation and test, and measured.

Shapes: T curves with N points in all.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_cli.core import lookup
from maml_cli.errors import DataError, FileError, shorten
from maml_cli.reading import sha256_of
from maml_cli.tables import Columns, PointTable, read_table
from maml_cli.tasks.family import Range, make_generator
from maml_cli.tasks.scaling import Scaling, affine_map

TRAIN, VALIDATION, TEST = 0, 1, 2
PURPOSES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
"""Names of the parts of a split."""
WORDS = {**PURPOSES, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION}
"""Words in the column `split`."""
MAX_MAGNITUDE = 1e30
"""Largest magnitude of inputs and targets: fourth powers of errors are within float64."""
FEWEST = 2
"""Curves of a part that is not empty: an interval needs two."""


class Source(NamedTuple):
    """A table of curves, and how it is read and split.

    file: its path.
    columns: of labels, inputs and targets.
    shares: of the curves for validation and for the test, where the table has no column `split`.
    seed: of the split.
    """

    file: str
    columns: Columns
    shares: tuple[float, float]
    seed: int


class Curves(NamedTuple):
    """Curves of a table, one after the other.

    labels: of the curves, T.
    x, y: inputs and targets, (N,), in float64.
    sizes: number of points of each curve, (T,).
    split: the part of the split that each curve belongs to, (T,).
    """

    labels: tuple[str, ...]
    x: Tensor
    y: Tensor
    sizes: Tensor
    split: Tensor

    @property
    def starts(self) -> Tensor:
        """Index of the first point of each curve, (T,)."""
        return self.sizes.cumsum(0) - self.sizes

    def indices(self, purpose: str, *, num_points: int = 1) -> Tensor:
        """The curves of a part that have `num_points` points or more, in the order of the table."""
        return ((self.split == PURPOSES[purpose]) & (self.sizes >= num_points)).nonzero().squeeze(1)

    def points(self, curves: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of all points of `curves`, (n,) each."""
        mask = torch.zeros(len(self.sizes), dtype=torch.bool).index_fill_(0, curves, True).repeat_interleave(self.sizes)
        return self.x[mask], self.y[mask]


class Measurements(NamedTuple):
    """The values of training curves that a training keeps.

    digest: SHA-256 of the table.
    x, y: ranges of inputs and targets.
    scaling: the normalisation.
    """

    digest: str
    x: Range
    y: Range
    scaling: Scaling


def read_curves(source: Source, digest: str | None = None) -> Curves:
    """The curves of a table, in memory for as long as it is in use.

    digest: the SHA-256 that it must have, if any. Raises FileError, and DataError with the line of what is invalid.
    """
    return _read(source, digest or sha256_of(Path(source.file)))


def measure_curves(source: Source, normalise: str) -> Measurements:
    """The digest of a table, and the ranges and the normalisation of its training curves."""
    curves = read_curves(source)
    training = curves.indices("train")
    if not len(training):
        raise DataError(f"{source.file}: no curve is for training; {_split_advice(source)}")
    x, y = curves.points(training)
    if largest := next((v for v in (x.abs().max().item(), y.abs().max().item()) if v > MAX_MAGNITUDE), None):
        raise DataError(f"{source.file}: has a value of magnitude {largest:g}; at most {MAX_MAGNITUDE:g} is possible")
    x_range, y_range = ((values.min().item(), values.max().item()) for values in (x, y))
    affine = lookup(NORMALISATIONS, normalise, "tasks.data.normalise", "tasks.curves.NORMALISATIONS")
    scaling = Scaling(*affine(x), *affine(y))
    return Measurements(sha256_of(Path(source.file)), x_range, y_range, scaling)


def _standard(values: Tensor) -> tuple[float, float]:
    std = values.std(correction=0).item() or 1.0
    return 1 / std, -values.mean().item() / std


def _range(values: Tensor) -> tuple[float, float]:
    return affine_map((values.min().item(), values.max().item()), (-1.0, 1.0))


NORMALISATIONS: dict[str, Callable[[Tensor], tuple[float, float]]] = {
    "standard": _standard,
    "range": _range,
    "none": lambda values: (1.0, 0.0),
}
"""Values of `tasks.data.normalise`: values (N,) -> factor and shift."""


@lru_cache(maxsize=4)
def _read(source: Source, digest: str) -> Curves:
    """The curves of the table with this digest, which keeps a changed table from being taken for the old one."""
    try:
        actual = sha256_of(Path(source.file))
    except FileError as error:
        raise FileError(
            f"{error}; the table of this training is looked for there, and in the directories of the run and above it; "
            f"put it there, or, to evaluate the run, give its path with --set tasks.file=PATH"
        ) from None
    if actual != digest:
        raise DataError(
            f"{source.file}: has changed since the training, so that its test curves may be others; restore it, or "
            f"evaluate on another table with --set tasks.file=FILE"
        )
    reader = read_table(Path(source.file), source.columns, uses=WORDS)
    if not reader.has_tasks:
        raise DataError(
            f"{source.file}:1: no column {source.columns.task or 'task'}; give one with the curve of each row"
        )
    tables = [*reader.tables]
    labels = tuple(label for table in tables for label in table.labels)
    x, y = (torch.cat([getattr(table, name) for table in tables]) for name in ("x", "y"))
    sizes = torch.cat([table.task.bincount(minlength=len(table.labels)) for table in tables])
    if reader.has_split:
        split = torch.cat([_split_by_column(table) for table in tables])
    else:
        split = _split_by_seed(len(labels), source)
    return Curves(labels, x, y, sizes, split)


def _split_by_column(table: PointTable) -> Tensor:
    """The part of each curve, (T,), which all of its rows must name."""
    first = torch.searchsorted(table.task, torch.arange(len(table.labels)))
    split = table.use[first]
    differing = (table.use != split[table.task]).nonzero()
    if len(differing):
        row = int(differing[0])
        label = shorten(table.labels[int(table.task[row])], 40)
        raise DataError(
            f"{table.source}:{int(table.lines[row])}: another split than in the first row of {label!r}; a curve has one"
        )
    return split


def _split_by_seed(num_curves: int, source: Source) -> Tensor:
    """The part of each curve, (T,), by a random permutation."""
    sizes = [max(FEWEST, round(share * num_curves)) if share else 0 for share in source.shares]
    if max(source.shares) == 1:
        sizes = [num_curves if share == 1 else 0 for share in source.shares]
    if sum(sizes) > num_curves:
        raise DataError(f"{source.file}: {num_curves} curves cannot be split; {_split_advice(source)}")
    split = torch.zeros(num_curves, dtype=torch.int64)
    order = torch.randperm(num_curves, generator=make_generator(source.seed, "split"))
    split[order[: sizes[0]]] = VALIDATION
    split[order[sizes[0] : sum(sizes)]] = TEST
    return split


def _split_advice(source: Source) -> str:
    return (
        "give more curves, smaller shares in tasks.data.validation and tasks.data.test, or a column split with train, "
        "validation or test"
    )


def source_of(tasks: Mapping[str, Any]) -> Source:
    """The source that the values of the section `tasks` describe."""
    data = tasks["data"]
    columns = Columns(data.x_column, data.y_column, data.task_column)
    return Source(tasks["file"], columns, (data.validation, data.test), data.split_seed)
