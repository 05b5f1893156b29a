"""The arrays of kernels: tensors whose addresses leave Python, once their types and shapes are checked."""

from collections.abc import Sequence

import torch
from torch import Tensor

DTYPES = {"float32": torch.float32, "float64": torch.float64}
"""The types of a kernel's points, parameters and gradients."""
MAX_THREADS = 1024


def check_tensor(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless `tensor` is dense, on the CPU, and of `dtype` and `shape`; it may have gaps."""
    if tensor.layout != torch.strided:
        raise ValueError(f"{name} is {tensor.layout}; the kernel takes {torch.strided}")
    if (tensor.dtype, tuple(tensor.shape), tensor.device.type) != (dtype, shape, "cpu"):
        actual = f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device.type}"
        raise ValueError(f"{name} is {actual}; the kernel takes {dtype} {shape} on cpu")


def check_array(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless `tensor` is an array that a kernel may use: as for `check_tensor`, and without gaps."""
    check_tensor(name, tensor, dtype, shape)
    if not tensor.is_contiguous():
        raise ValueError(f"{name} is not contiguous")


def raise_refusal(code: int, arrays: Sequence[str], *, num_threads: int) -> None:
    """Raises ValueError or MemoryError if `code`, the value that a call with `arrays` returned, says that the kernel
    refused it; nothing is written then."""
    if code == -2:
        raise MemoryError(f"the kernel cannot start {num_threads} threads, or lacks memory; lower run.threads")
    if code < 0:
        raise ValueError("the kernel refused the counts of the call")
    if code > 0:
        raise ValueError(f"the kernel refused the call: {arrays[code - 1]} has not the length of its shape")
