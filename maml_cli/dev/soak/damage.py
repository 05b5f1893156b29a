"""Damaged checkpoints: flipped bits and truncations, decoded alone and against the SHA-256 of their run."""

import random
import re
import shutil
import struct
import zipfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally, scaled
from maml_cli.dev.soak.trained import SHORT, train_undisturbed
from maml_cli.errors import CheckpointError
from maml_cli.runs import checkpoint, open_checkpoint

SMALL_NETWORK = "--set=model.hidden=[8]"
SAMPLED_BITS = 100_000
FILES = 400
"""Flipped bits that are also read from files, by `open_checkpoint`: the others are decoded in memory."""
Damage = tuple[str, bytes]
"""A damaged checkpoint after a description of the damage."""


def attack_bits(scratch: Path, *, scale: float) -> SoakRow:
    """Flip every bit outside of tensor data and a sample of the bits inside: each must be noticed.

    In a short form, a sample of the bits outside as well.
    """
    tally, choices = Tally("flipped bits of checkpoints, in a run and alone"), random.Random(0)
    run, _ = train_undisturbed(scratch, [*SHORT, SMALL_NETWORK])
    (file, *_) = sorted(run.glob("checkpoints/*.pt"), reverse=True)
    data = file.read_bytes()
    inside = [bit for start, end in tensor_spans(data) for bit in range(8 * start, 8 * end)]
    outside = sorted(set(range(8 * len(data))) - set(inside))
    bits = choices.choices(inside, k=scaled(SAMPLED_BITS, scale))
    bits += outside if scale >= 1 else choices.choices(outside, k=scaled(len(outside), scale))
    _decode_all(tally, data, (_flipped(data, bit) for bit in bits))
    _open_all(tally, run, file, (_flipped(data, bit) for bit in choices.choices(bits, k=scaled(FILES, scale))))
    return tally.row()


def attack_truncations(scratch: Path, *, scale: float) -> SoakRow:
    """Cut a checkpoint to every length: each must be noticed."""
    tally = Tally("truncations of checkpoints, in a run and alone")
    run, _ = train_undisturbed(scratch, [*SHORT, SMALL_NETWORK])
    (file, *_) = sorted(run.glob("checkpoints/*.pt"), reverse=True)
    data = file.read_bytes()
    stride = round(1 / min(1, scale))
    _decode_all(tally, data, _cut(data, range(0, len(data), stride)))
    _open_all(tally, run, file, _cut(data, range(0, len(data), len(data) // scaled(FILES, scale) + 1)))
    return tally.row()


def tensor_spans(data: bytes) -> list[tuple[int, int]]:
    """Start and end of the bytes of each tensor in the checkpoint `data`."""
    spans = []
    with zipfile.ZipFile(BytesIO(data)) as archive:
        for info in archive.infolist():
            if re.search(r"/data/\d+$", info.filename):
                name_size, extra_size = struct.unpack_from("<HH", data, info.header_offset + 26)
                start = info.header_offset + 30 + name_size + extra_size
                spans.append((start, start + info.file_size))
    return spans


def _flipped(data: bytes, bit: int) -> Damage:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return f"bit {bit} flipped", bytes(damaged)


def _cut(data: bytes, lengths: Iterable[int]) -> Iterator[Damage]:
    return ((f"cut to {length} bytes", data[:length]) for length in lengths)


def _decode_all(tally: Tally, data: bytes, damages: Iterable[Damage]) -> None:
    """Decode each damaged checkpoint without a SHA-256 and with that of `data`."""
    expected = checkpoint.digest(data)
    for description, damaged in damages:
        for sha256 in (None, expected):
            tally.tries += 1
            try:
                checkpoint.decode(damaged, sha256=sha256)
                tally.fail("changed", f"{description}, {'in a run' if sha256 else 'alone'}: not noticed")
            except CheckpointError:
                pass
            except Exception as error:
                tally.fail("tracebacks", f"{description}: {type(error).__name__}: {error}")


def _open_all(tally: Tally, run: Path, file: Path, damages: Iterable[Damage]) -> None:
    """Read each damaged checkpoint from a file in its run, and from one outside of any; restore the file."""
    alone = run.parent / "alone.pt"
    intact = shutil.copy(file, run.parent / "intact.pt")
    for description, damaged in damages:
        for target in (file, alone):
            tally.tries += 1
            target.write_bytes(damaged)
            try:
                open_checkpoint(target)
                tally.fail("changed", f"{description} of {target.name}: not noticed")
            except CheckpointError as error:
                if str(target) not in str(error):
                    tally.fail("tracebacks", f"{description}: a message that does not name the file: {error}")
            except Exception as error:
                tally.fail("tracebacks", f"{description} of {target.name}: {type(error).__name__}: {error}")
    shutil.move(intact, file)
