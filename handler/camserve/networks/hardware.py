"""Which number formats a device computes fast."""

from __future__ import annotations

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether a device has bfloat16 matrix instructions, rather than emulating them."""
    if device.type == "cuda":
        # Ampere.
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return has_onednn() and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def has_onednn() -> bool:
    """Whether this build of PyTorch has oneDNN, whose kernels use those instructions."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
