"""What the machine offers: cores to share, and numbers that it multiplies fast."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

import torch

from camserve.runtime.cores import usable_cores


def threads(wanted: int, workers: int) -> int:
    """How many threads a worker is to compute in.

    Args:
        wanted: by the operator; 0 for this worker's share of the cores, or fewer where
            ``OMP_NUM_THREADS`` says so.
        workers: that share the machine.
    """
    return wanted or max(1, min(torch.get_num_threads(), usable_cores() // workers))


def release() -> None:
    """Give back the memory that is in use no more.

    A trace holds on to itself, and so to weights; and what was freed, the C library keeps for the
    next time: a quarter of what a worker has when it is loaded.
    """
    gc.collect()
    with suppress(OSError, AttributeError):
        # Of glibc; others have no such thing.
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(failure: Exception) -> bool:
    """Whether an exception says that memory was wanting, the host's or the device's."""
    if isinstance(failure, MemoryError | torch.OutOfMemoryError):
        return True
    # What PyTorch's allocators for the host say, for want of a class of their own.
    said = ("can't allocate memory", "not enough memory")
    return isinstance(failure, RuntimeError) and any(words in str(failure) for words in said)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions that multiply bfloat16, rather than imitating them."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return has_onednn() and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def has_onednn() -> bool:
    """Whether this PyTorch has oneDNN."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
