"""Hostile calls of the kernel: counts and lengths that do not fit, all of which it must refuse."""

from collections.abc import Iterator

import torch
from torch import Tensor

from maml_cli.engines.kernel_call import CallArgs, PackedCall

EXTREMES = (-1, -(2**63), 2**63 - 1)
LARGE = (2**62, 2**62 + 1)


def hostile_calls(call: PackedCall) -> Iterator[tuple[str, PackedCall]]:
    """Descriptions and calls, each `call` with one count or array that does not fit the others.

    Arrays are one element short or long, empty or absent, or their lengths are negative or huge; counts are one more or
    less, zero, negative or huge, and some so large that products of them overflow.
    """
    for name, array in call.arrays.items():
        if array is None:
            continue
        flat = array.flatten()
        for other in (flat[:-1], torch.cat([flat, flat[:1]]), flat[:0]):
            yield f"{name} of {other.numel()} elements", _replace_array(call, name, other, length=other.numel())
        for length in (*EXTREMES, *LARGE):
            yield f"{name} of length {length}", _replace_array(call, name, flat, length=length)
        yield f"{name} absent", _replace_array(call, name, None, length=flat.numel())
    for name in ("num_steps", "num_runs", "num_tasks"):
        count = getattr(call.args, name)
        for value in (0, count - 1, count + 1, *EXTREMES, *LARGE, 2**62 + count):
            yield f"{name} {value}", _replace_count(call, name, value)
    for value in (0, 1025, *EXTREMES, *LARGE):
        yield f"num_threads {value}", _replace_count(call, "num_threads", value)
    for value in EXTREMES:
        yield f"adam_steps {value}", _replace_count(call, "adam_steps", value)
    for value in (-(2**31), -1, 3, 2**31 - 1):
        for optimizers in ((value, 0), (0, value)):
            yield f"optimizers {optimizers}", _replace_count(call, "optimizers", optimizers)


def _replace_array(call: PackedCall, name: str, array: Tensor | None, *, length: int) -> PackedCall:
    args = CallArgs.from_buffer_copy(call.args)
    args.lengths[[*call.arrays].index(name)] = length
    return call._replace(args=args, arrays=call.arrays | {name: array})


def _replace_count(call: PackedCall, name: str, value: int | tuple[int, int]) -> PackedCall:
    args = CallArgs.from_buffer_copy(call.args)
    setattr(args, name, value)
    return call._replace(args=args)
