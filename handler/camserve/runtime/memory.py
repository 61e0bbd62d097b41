"""Memory: when it is wanting, and how what is free goes back.

PyTorch is imported where it is used: the command line asks :mod:`camserve.runtime` for the cores,
and is not to pay for PyTorch.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def release_memory() -> None:
    """Give back the memory that is in use no more.

    A trace holds on to itself, and so to weights; and what was freed, the C library keeps for the
    next time: a quarter of what a worker has when it is loaded.
    """
    import torch

    gc.collect()
    with suppress(OSError, AttributeError):
        # Of glibc; others have no such thing.
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(failure: Exception) -> bool:
    """Whether an exception says that memory was wanting, the host's or the device's."""
    import torch

    if isinstance(failure, MemoryError | torch.OutOfMemoryError):
        return True
    # What PyTorch's allocators for the host say, for want of a class of their own.
    said = ("can't allocate memory", "not enough memory")
    return isinstance(failure, RuntimeError) and any(words in str(failure) for words in said)
