"""A checkpoint as bytes: tensors and plain values only, the same bytes for the same contents, verified before use."""

import hashlib
import io
import sys
import zipfile
from typing import Any

import torch

from maml_cli.errors import CheckpointError

CHECKPOINT_SCHEMA_VERSION = 1


def encode(contents: dict[str, Any]) -> bytes:
    """The bytes of a checkpoint file that holds `contents`."""
    buffer = io.BytesIO()
    torch.save(_canonical(contents | {"schema_version": CHECKPOINT_SCHEMA_VERSION}), buffer)
    return buffer.getvalue()


def decode(data: bytes, *, sha256: str | None = None) -> dict[str, Any]:
    """The contents of a checkpoint, on the CPU.

    Verified before anything is unpickled: the SHA-256 where it is known, and the zip's own CRCs, which
    torch.load does not look at. Raises CheckpointError.
    """
    if sha256 is not None and digest(data) != sha256:
        raise CheckpointError("damaged: its SHA-256 is not the one that was written down")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile raises many kinds on damaged archives, and none of them is ours
        raise CheckpointError(f"damaged, or not a checkpoint: {error}") from None
    if damaged is not None:
        raise CheckpointError(f"damaged: bad CRC in {damaged}")
    try:
        contents = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # as above, and torch's own message tells people to load the file unsafely
        raise CheckpointError("not a checkpoint of maml") from None
    if not isinstance(contents, dict) or not isinstance(contents.get("schema_version"), int):
        raise CheckpointError("not a checkpoint of maml")
    if contents["schema_version"] > CHECKPOINT_SCHEMA_VERSION:
        raise CheckpointError(
            f"written by a newer maml (schema {contents['schema_version']}, this one reads "
            f"{CHECKPOINT_SCHEMA_VERSION}); upgrade"
        )
    return contents


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _canonical(value: Any) -> Any:
    """Equal values without shared identity: pickle writes an object that it meets again as a reference."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, dict):
        return {_canonical(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_canonical(item) for item in value)
    if isinstance(value, str):
        return sys.intern(str(value))
    if value is None or isinstance(value, bool | int | float):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")
