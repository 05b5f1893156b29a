"""Builders of hostile checkpoints: right digests over archives, pickles and contents that maml never writes."""

import copy
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from maml_cli.runs import archive, checkpoint
from maml_cli.runs.archive import Member

Keys = tuple[str | int, ...]


def sealed(body: bytes) -> bytes:
    """`body`, an archive without its comment, with the digest that makes it look undamaged."""
    return body + checkpoint.digest(body).encode()


def members(data: bytes) -> list[Member]:
    """The members of a good checkpoint."""
    return [Member(name, bytes(content)) for name, content in archive.unpack(data)]


def with_pickle(data: bytes, pickled: bytes) -> bytes:
    """The checkpoint `data` with another pickle, in an archive that is in canonical form."""
    return archive.pack([Member("archive/data.pkl", pickled), *members(data)[1:]])


def content_spans(data: bytes) -> list[range]:
    """The positions of the contents of the members in a good checkpoint."""
    spans, offset = [], 0
    for name, content in members(data):
        start = offset + struct.calcsize("<4s5H3I2H") + len(name)
        spans.append(range(start, start + len(content)))
        offset = start + len(content)
    return spans


def leaves(value: Any, path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Every value of nested contents with its path, dictionaries and lists included."""
    if path:
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from leaves(item, (*path, key))


def replaced(contents: dict[str, Any], path: Keys, value: Any) -> dict[str, Any]:
    """A copy of `contents` with `value` at `path`."""
    result = copy.deepcopy(contents)
    _parent(result, path)[path[-1]] = value
    return result


def removed(contents: dict[str, Any], path: Keys) -> dict[str, Any]:
    """A copy of `contents` without the value at `path`."""
    result = copy.deepcopy(contents)
    del _parent(result, path)[path[-1]]
    return result


def wrong_values(value: Any) -> Sequence[Any]:
    """Values of other kinds, shapes, dtypes and sizes than `value`, none equal to it."""
    plain = [
        None,
        True,
        -1,
        10**9,
        2**63 - 1,
        0.5,
        float("nan"),
        float("inf"),
        "4",
        "\x1b[31m\n",
        [],
        [1, 2],
        {},
        {"a": 1},
    ]
    tensors = [torch.ones(()), torch.ones(1, 3), torch.zeros(0), torch.full((1, 1, 1), float("nan"))]
    if not isinstance(value, torch.Tensor):
        return [*plain, *tensors]
    other_dtype = torch.int64 if value.dtype != torch.int64 else torch.float64
    rows = value.reshape(1) if value.dim() == 0 else value
    shapes = [rows[:0], torch.cat([rows, rows]), rows.flatten(), rows.unsqueeze(0), rows.unsqueeze(-1), rows[..., :0]]
    return [*plain, *tensors, value.to(other_dtype), *(shape for shape in shapes if shape.shape != value.shape)]


def _parent(contents: Any, path: Keys) -> Any:
    for key in path[:-1]:
        contents = contents[key]
    return contents
