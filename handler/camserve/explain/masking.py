"""Photos with a part hidden, as the figures of faithfulness need them.

All of it works on the network's normalised input, in which 0 is the mean colour.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

# Of the blurred photo that insertion begins with, in pixels, as RISE's own code has them.
_BLUR_WIDTH: Final = 11
_BLUR_SIGMA: Final = 5.0


def pixel_order(map: Tensor) -> Tensor:
    """(H, W) -> (H * W,): the index of each pixel, that of the highest value first.

    Of equal values the first in reading order comes first.
    """
    return map.flatten().argsort(descending=True, stable=True)


def top_pixels(order: Tensor, fraction: float, size: tuple[int, int]) -> Tensor:
    """(H, W) bool: the first ``fraction`` of the pixels of an order."""
    hidden = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    hidden[order[: round(fraction * len(order))]] = True
    return hidden.view(size)


def weight_pixels(photo: Tensor, map: Tensor) -> Tensor:
    """(C, H, W) times a map (H, W): what the map leaves of a photo.

    Chattopadhay et al. 2018, "Grad-CAM++", arXiv 1710.11063, section 5.1.
    """
    return photo * map


def delete_pixels(photo: Tensor, hidden: Tensor) -> Tensor:
    """(C, H, W) with the pixels of ``hidden`` (H, W) in the mean colour.

    Petsiuk et al. 2018, "RISE", arXiv 1806.07421, section 4.1.
    """
    return photo.masked_fill(hidden, 0)


def insert_pixels(blurred: Tensor, photo: Tensor, shown: Tensor) -> Tensor:
    """(C, H, W): the pixels of ``shown`` (H, W) of a photo, and the rest of its blurred form."""
    return torch.where(shown, photo, blurred)


def blur(photo: Tensor) -> Tensor:
    """(C, H, W) blurred by a Gaussian, the substrate of insertion in RISE."""
    offsets = torch.arange(_BLUR_WIDTH, device=photo.device) - _BLUR_WIDTH // 2
    weights = torch.exp(-(offsets**2) / (2 * _BLUR_SIGMA**2))
    weights /= weights.sum()
    margin = _BLUR_WIDTH // 2
    padded = F.pad(photo.unsqueeze(1), (margin,) * 4, mode="replicate")
    by_row = F.conv2d(padded, weights.view(1, 1, 1, -1))
    return F.conv2d(by_row, weights.view(1, 1, -1, 1)).squeeze(1)
