"""What lets PyTorch start and compute sooner here. None of it changes a number; where it does not apply it is left."""

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_freed_memory() -> None:
    """Have glibc keep what is freed: tensors of a few MB come and go, and the system would clear each of them anew."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)


def leave_dynamo_out() -> None:
    """Let optimisers be used without importing torch._dynamo, which takes longer than a short training.

    They import it to keep some methods from being compiled, which nothing here does; so these are put where torch
    keeps those that are not compiled.
    """
    for name in ("add_param_group", "state_dict", "load_state_dict"):
        method = getattr(getattr(torch.optim.Optimizer, name, None), "__wrapped__", None)
        if method is not None and not hasattr(method, "__dynamo_disable"):
            setattr(method, "__dynamo_disable", method)
