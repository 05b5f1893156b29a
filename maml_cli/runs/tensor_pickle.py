"""Nested plain values and tensors as a pickle that torch.load reads, in canonical form: equal bytes for equal values.

Values: None, bool, int (64 bits), float, str, list, dict with str keys, and tensors of four dtypes. A pickle is a tree
without references, so that no value is shared and its size bounds the work. It is parsed here and never executed.
"""

import math
import pickle
import pickletools
import struct
import warnings
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

MAX_BYTES = 2**18
"""Size limit of a pickle: more than twice that of the largest contents, 17 layers with everything learned."""
MAX_DEPTH = 8
"""Depth limit of nested lists and dictionaries; contents have 5."""

STORAGES: dict[torch.dtype, str] = {
    torch.float32: "FloatStorage",
    torch.float64: "DoubleStorage",
    torch.int64: "LongStorage",
    torch.uint8: "ByteStorage",
}
"""The dtypes that tensors may have, with the names that torch gives to their storages."""

_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_ENCODED_LITERALS = {None: b"N", True: b"\x88", False: b"\x89"}
_SCALARS = {"BININT", "LONG1", "BINFLOAT", "BINUNICODE"}
_NUM_TENSOR_OPS = 100  # of a tensor with fewer than 40 axes

_Op = tuple[str, Any]
"""Name and argument of an opcode of a pickle."""


def dumps(value: Any) -> tuple[bytes, list[Tensor]]:
    """The pickle of `value`, and its tensors in the order of their numbers.

    Raises TypeError for a value of another type, OverflowError for an integer of more than 64 bits.
    """
    tensors: list[Tensor] = []
    return b"\x80\x02" + _encode(value, tensors) + b".", tensors


def loads(data: bytes, storages: Sequence[memoryview]) -> Any:
    """The value whose pickle is `data`; `storages` has the bytes of each tensor.

    Raises ValueError, or another Exception, unless `dumps` makes `data` and `storages` of the value.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes")
    ops = ((opcode.name, argument) for opcode, argument, _ in pickletools.genops(data))
    unread = iter(storages)
    _expect(ops, "PROTO")
    value = _parse(ops, next(ops), unread, depth=0)
    _expect(ops, "STOP")
    if dumps(value)[0] != data or next(unread, None) is not None:
        raise ValueError("not in canonical form")
    return value


def _encode(value: Any, tensors: list[Tensor]) -> bytes:
    if isinstance(value, Tensor):
        return _encode_tensor(value, tensors)
    if value is None or isinstance(value, bool):
        return _ENCODED_LITERALS[value]
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        if not -(2**63) <= value < 2**63:
            raise OverflowError("a checkpoint cannot hold an integer of more than 64 bits")
        digits = pickle.encode_long(value)
        return b"\x8a" + bytes([len(digits)]) + digits
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode()
        return b"X" + struct.pack("<I", len(text)) + text
    if isinstance(value, list):
        return b"](" + b"".join(_encode(item, tensors) for item in value) + b"e"
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        items = (_encode(key, tensors) + _encode(item, tensors) for key, item in value.items())
        return b"}(" + b"".join(items) + b"u"
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")


def _encode_tensor(tensor: Tensor, tensors: list[Tensor]) -> bytes:
    """torch._utils._rebuild_tensor_v2(storage, offset 0, shape, strides, requires_grad False, no hooks)."""
    if tensor.dtype not in STORAGES or tensor.layout != torch.strided:
        raise TypeError(f"a checkpoint cannot hold a tensor of {tensor.dtype}, {tensor.layout}")
    storage = _encode("storage", []) + f"ctorch\n{STORAGES[tensor.dtype]}\n".encode() + _encode(str(len(tensors)), [])
    storage = b"(" + storage + _encode("cpu", []) + _encode(tensor.numel(), []) + b"tQ"
    shape, strides = (b"(" + b"".join(_encode(size, []) for size in axes) + b"t" for axes in _axes(tensor))
    tensors.append(tensor)
    arguments = storage + _encode(0, []) + shape + strides + b"\x89" + b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def _axes(tensor: Tensor) -> tuple[Sequence[int], Sequence[int]]:
    """The shape of a tensor, and its strides when contiguous."""
    shape = tuple(tensor.shape)
    return shape, [math.prod(max(size, 1) for size in shape[axis + 1 :]) for axis in range(len(shape))]


def _parse(ops: Iterator[_Op], op: _Op, storages: Iterator[memoryview], *, depth: int) -> Any:
    """The value that begins with `op`; more is accepted than `dumps` writes, which the caller compares."""
    name, argument = op
    if name in _LITERALS:
        return _LITERALS[name]
    if name in _SCALARS:
        return argument
    if name == "GLOBAL":
        return _parse_tensor(ops, storages)
    if name not in ("EMPTY_LIST", "EMPTY_DICT") or depth >= MAX_DEPTH:
        raise ValueError(f"{name} at depth {depth}")
    _expect(ops, "MARK")
    end = "APPENDS" if name == "EMPTY_LIST" else "SETITEMS"
    items = []
    while (op := next(ops))[0] != end:
        items.append(_parse(ops, op, storages, depth=depth + 1))
    return items if name == "EMPTY_LIST" else dict(zip(items[::2], items[1::2], strict=True))


def _parse_tensor(ops: Iterator[_Op], storages: Iterator[memoryview]) -> Tensor:
    """The tensor after the name of its function: a copy of the next storage, in the dtype and shape that are given."""
    parts: list[_Op] = []
    while parts.count(("REDUCE", None)) < 2 and len(parts) < _NUM_TENSOR_OPS:
        parts.append(next(ops))
    dtype = {f"torch {name}": dtype for dtype, name in STORAGES.items()}[parts[3][1]]
    shape = [size for _, size in takewhile(lambda op: op[0] == "BININT", parts[11:])]
    storage = next(storages)
    if math.prod(shape) * dtype.itemsize != len(storage):
        raise ValueError("a storage that does not have the size of its tensor")
    if not storage:
        return torch.empty(shape, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that `storage` is not writable: it is copied
        return torch.frombuffer(storage, dtype=dtype).reshape(shape).clone()


def _expect(ops: Iterator[_Op], expected: str) -> None:
    name, _ = next(ops)
    if name != expected:
        raise ValueError(f"{name} in the place of {expected}")
