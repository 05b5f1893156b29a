"""The byte format of checkpoints: tensors and plain values, equal bytes for equal contents, verified when decoded."""

import hashlib
import io
import sys
import zipfile
from typing import Any

import torch

from maml_cli.errors import CheckpointError, NewerVersionError

CHECKPOINT_SCHEMA_VERSION = 1
"""Version of the contents; decoding refuses a greater one."""


def encode(contents: dict[str, Any]) -> bytes:
    """Bytes of a checkpoint file with `contents`; raises TypeError for values other than tensors and plain ones."""
    buffer = io.BytesIO()
    torch.save(_canonical(contents | {"schema_version": CHECKPOINT_SCHEMA_VERSION}), buffer)
    return buffer.getvalue()


def decode(data: bytes, *, sha256: str | None = None) -> dict[str, Any]:
    """Contents of a checkpoint, with tensors on the CPU.

    The SHA-256, if given, and the CRCs of the zip archive, which torch.load ignores, are verified before anything is
    unpickled. Raises CheckpointError.
    """
    if sha256 is not None and digest(data) != sha256:
        raise CheckpointError("damaged: its SHA-256 differs from that in SHA256SUMS or last.json")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile raises many types of errors on damaged archives
        raise CheckpointError(f"damaged, or not a checkpoint: {str(error) or type(error).__name__}") from None
    if damaged is not None:
        raise CheckpointError(f"damaged: bad CRC in {damaged}")
    try:
        contents = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # as above; torch's message advises loading the file unsafely
        raise CheckpointError("not a checkpoint of maml") from None
    if not isinstance(contents, dict) or not isinstance(contents.get("schema_version"), int):
        raise CheckpointError("not a checkpoint of maml")
    if contents["schema_version"] > CHECKPOINT_SCHEMA_VERSION:
        raise NewerVersionError(
            f"written by a newer maml (schema {contents['schema_version']}, this one reads "
            f"{CHECKPOINT_SCHEMA_VERSION}); upgrade"
        )
    return contents


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _canonical(value: Any) -> Any:
    """A copy in which equal strings are one object and no tensors are: pickle writes repeated objects as references."""
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
