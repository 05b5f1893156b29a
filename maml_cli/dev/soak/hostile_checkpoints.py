"""Hostile checkpoints with right digests: every command refuses them or reads them."""

import copy
import io
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from maml_cli.dev.soak.commands import COMMANDS, run_commands
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally, scaled
from maml_cli.dev.soak.trained import SHORT, fresh_copy, remove, train_undisturbed
from maml_cli.runs import archive, checkpoint

ATTEMPTS = 200
VALUES: tuple[Any, ...] = (
    None,
    float("nan"),
    float("inf"),
    -1,
    10**9,
    10**400,
    "",
    "\x1b[2J",
    [],
    [[[[[[]]]]]],
    {},
    {"a": 1},
    True,
    2.5,
)
TENSORS: tuple[Callable[[torch.Tensor], Any], ...] = (
    lambda tensor: tensor.to(torch.complex64),
    lambda tensor: tensor.to(torch.bfloat16),
    lambda tensor: tensor.double() if tensor.dtype != torch.float64 else tensor.float(),
    lambda tensor: tensor[..., :0],
    lambda tensor: tensor.unsqueeze(0),
    lambda tensor: tensor.flatten()[:1].expand(10**6, 10**6),
    lambda tensor: torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor - 1,
    lambda tensor: tensor.to("meta"),
    lambda tensor: tensor.to_sparse(),
    lambda tensor: torch.nn.Parameter(tensor) if tensor.is_floating_point() else tensor.bool(),
    lambda tensor: torch.zeros(300, 300, dtype=tensor.dtype),
)


def attack(scratch: Path, *, scale: float) -> SoakRow:
    """Checkpoints with one value, tensor or field of the archive replaced, all digests right."""
    tally, choices = Tally("200 hostile checkpoints"), random.Random(0)
    run, _ = train_undisturbed(scratch, SHORT)
    (newest, *_) = sorted(run.glob("checkpoints/*.pt"), reverse=True)
    contents = checkpoint.decode(newest.read_bytes())
    for number in range(scaled(ATTEMPTS, scale)):
        line, data = hostile_checkpoint(contents, choices)
        folder = scratch / "hostile"
        folder.mkdir()
        file = fresh_copy(run, folder / "run") / "checkpoints" / newest.name
        file.write_bytes(data)
        sums = file.with_name("SHA256SUMS")
        lines_of_others = [text for text in sums.read_text().splitlines(True) if newest.name not in text]
        sums.write_text("".join(lines_of_others) + f"{checkpoint.digest(data)}  {newest.name}\n")
        run_commands(
            tally, folder, f"checkpoint {number}: {line}", [COMMANDS[number % 3]] if scale < 1 else COMMANDS[:3]
        )
        if file.read_bytes() != data and number % 3 < 2 and scale < 1:
            tally.fail("changed", f"checkpoint {number}: {line}: replaced by a command that reads")
        remove(folder)
    return tally.row()


def hostile_checkpoint(contents: dict[str, Any], choices: random.Random) -> tuple[str, bytes]:
    """A description and the bytes of a checkpoint like `contents` with one change."""
    if choices.random() < 0.2:
        return _damaged_archive(checkpoint.encode(contents), choices)
    hostile = copy.deepcopy(contents)
    path = choices.choice([*_paths(hostile)])
    parent = hostile
    for key in path[:-1]:
        parent = parent[key]
    value = parent[path[-1]]
    if isinstance(value, torch.Tensor) and choices.random() < 0.7:
        index = choices.randrange(len(TENSORS))
        parent[path[-1]], line = TENSORS[index](value), f"tensor {index}"
    elif choices.random() < 0.2:
        del parent[path[-1]]
        line = "removed"
    else:
        parent[path[-1]] = choices.choice(VALUES)
        line = f"{parent[path[-1]]!r:.40}"
    return f"{'.'.join(map(str, path))}: {line}", sealed(hostile)


def sealed(contents: Any) -> bytes:
    """A checkpoint of `contents`, pickled by torch where they are none that maml writes, with a right digest."""
    try:
        return checkpoint.encode(contents)
    except Exception:
        buffer = io.BytesIO()
        torch.save(contents, buffer)
    with zipfile.ZipFile(buffer) as stored:
        return archive.pack([archive.Member(name, stored.read(name)) for name in stored.namelist()])


def _damaged_archive(data: bytes, choices: random.Random) -> tuple[str, bytes]:
    """An archive with four bytes of a header replaced, and the digest of the new bytes at its end."""
    size = len(archive.pack([])) - 22  # of the digest
    headers = [at for at in range(len(data) - size) if data[at : at + 2] == b"PK"]
    at = choices.choice(headers) + choices.randrange(46)
    words = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\1\0\0\0", choices.randbytes(4))
    body = data[:at] + choices.choice(words) + data[at + 4 : -size]
    return f"four bytes at {at}", body + checkpoint.digest(body).encode()


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every item inside nested dictionaries and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from _paths(item, (*path, key))
