"""Returning freed memory to the system, and recognizing out-of-memory errors.

PyTorch is imported inside the functions that need it: the command line imports
:mod:`camserve.runtime` to count cores, and must not pay for PyTorch.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

#: Messages of PyTorch's CPU allocators, which raise a bare RuntimeError.
_ALLOCATOR_MESSAGES = ("can't allocate memory", "not enough memory")


def release_memory() -> None:
    """Return memory that is no longer in use to the operating system and to the GPU.

    A traced graph is a reference cycle that keeps weights alive, so it needs the garbage collector.
    glibc keeps freed memory for later use: a quarter of a worker's memory after loading.
    """
    import torch

    gc.collect()
    with suppress(OSError, AttributeError):
        # Only glibc has malloc_trim.
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(failure: Exception) -> bool:
    """Whether an exception means that the host or the GPU ran out of memory."""
    import torch

    if isinstance(failure, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(failure, RuntimeError) and any(
        message in str(failure) for message in _ALLOCATOR_MESSAGES
    )
