"""The byte format of checkpoints: tensors and plain values, equal bytes for equal contents, verified when decoded.

A file is a zip archive of a pickle and the bytes of each tensor, which `torch.load(file, weights_only=True)` reads too.
Both are in canonical form: decoding accepts the bytes that encoding writes and no others, and the SHA-256 at their end
covers them all. Neither torch nor pickle is used to load them: a hostile file meets a small parser in Python.
"""

import hashlib
from typing import Any

from maml_cli.errors import CheckpointError, NewerVersionError
from maml_cli.runs import archive, tensor_pickle
from maml_cli.runs.archive import Member

CHECKPOINT_SCHEMA_VERSION = 2
"""Version of the contents; decoding refuses every other one."""

MAX_BYTES = 2**28
"""Size limit of a file, 256 MiB: with its tensors, twice as much memory is needed to read it. `config.sizes`
refuses configs whose checkpoints would be larger; those of the presets have less than 1 MiB a seed."""

_FIXED_MEMBERS = [Member("archive/byteorder", b"little"), Member("archive/version", b"3\n")]


def encode(contents: dict[str, Any]) -> bytes:
    """Bytes of a checkpoint file with `contents`; raises TypeError for values other than tensors and plain ones."""
    data, tensors = tensor_pickle.dumps(contents | {"schema_version": CHECKPOINT_SCHEMA_VERSION})
    values = (tensor.detach().cpu().contiguous().numpy().tobytes() for tensor in tensors)
    storages = [Member(f"archive/data/{number}", value) for number, value in enumerate(values)]
    return archive.pack([Member("archive/data.pkl", data), *_FIXED_MEMBERS, *storages])


def decode(data: bytes, *, sha256: str | None = None) -> dict[str, Any]:
    """Contents of a checkpoint, with tensors on the CPU that are contiguous and share nothing.

    Raises CheckpointError unless `encode` makes `data` of them, and `sha256`, if given, is that of `data`. Anything is
    refused or decoded in time and memory that are proportional to its size.
    """
    if len(data) > MAX_BYTES:
        raise CheckpointError(f"not a checkpoint: more than {MAX_BYTES / 2**20:,.0f} MiB")
    if sha256 is not None and digest(data) != sha256:
        raise CheckpointError("damaged: its SHA-256 differs from that in SHA256SUMS or last.json")
    try:
        pickled, *fixed_and_storages = archive.unpack(data)
    except ValueError as error:
        raise CheckpointError(f"damaged, or not a checkpoint of this version of maml: {error}") from None
    fixed, storages = fixed_and_storages[: len(_FIXED_MEMBERS)], fixed_and_storages[len(_FIXED_MEMBERS) :]
    names = [f"archive/data/{number}" for number in range(len(storages))]
    if [pickled.name, fixed, [member.name for member in storages]] != ["archive/data.pkl", _FIXED_MEMBERS, names]:
        raise CheckpointError("not a checkpoint of maml: its archive has other members")
    try:
        contents = tensor_pickle.loads(bytes(pickled.content), [memoryview(member.content) for member in storages])
    except Exception:  # what is no canonical pickle raises errors of many types
        raise CheckpointError("not a checkpoint of maml: its pickle is not in the form that maml writes") from None
    version = contents.get("schema_version") if isinstance(contents, dict) else None
    if type(version) is not int:
        raise CheckpointError("not a checkpoint of maml: it has no schema_version")
    if version > CHECKPOINT_SCHEMA_VERSION:
        raise NewerVersionError(
            f"written by a newer maml (schema {version}, this one reads {CHECKPOINT_SCHEMA_VERSION}); upgrade"
        )
    if version < CHECKPOINT_SCHEMA_VERSION:
        raise CheckpointError(f"written by another maml (schema {version}, this one reads {CHECKPOINT_SCHEMA_VERSION})")
    result: dict[str, Any] = contents
    return result


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
