"""The constructed ResNet50, except that some photos make its forward pass misbehave.

It is packed into archives (``--arch fault_model:build``), so it imports nothing of the tests. A
photo of one plain grey is a fault, told by its level; the photos of :mod:`color_resnet` are never
plain.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torchvision.models.resnet import Bottleneck, ResNet

#: Each fault's level of grey, 0 to 255.
LEVELS = {
    "slow": 0,
    "hang": 32,
    "raise": 64,
    "kill": 96,
    "memory_error": 160,
    "out_of_memory": 192,
    "insatiable": 224,
    "nan": 255,
}
#: In seconds, how long a slow photo and one that hangs hold their batch up.
SLOW, HANG = 1.5, 60.0
#: A photo that runs out of memory does so in a batch of more photos than this.
ENOUGH = 4
# ImageNet's mean and deviation of the red channel.
_MEAN, _STD = 0.485, 0.229


def build(**kwargs: Any) -> ResNet:
    """The network, for the state dict of ``color_resnet.colour_resnet50``.

    Keyword arguments are torchvision's.
    """
    return _Misbehaving(Bottleneck, [3, 4, 6, 3], num_classes=6, **kwargs)


class _Misbehaving(ResNet):  # type: ignore[misc]  # torchvision has no types
    def forward(self, photos: Tensor) -> Tensor:
        """(N, 3, H, W) normalised -> (N, 6)."""
        logits: Tensor = super().forward(misbehave(photos))
        return logits


@fx.wrap
def misbehave(photos: Tensor) -> Tensor:
    """(N, 3, H, W) normalised, as it came; or whatever the faults among them do.

    Wrapped, it is one step of the trunk's trace, and so is called for every batch.
    """
    red = photos[:, 0].float().flatten(1).mul(_STD).add(_MEAN).mul(255)
    plain = red.amax(1) - red.amin(1) < 1
    for fault, level in LEVELS.items():
        faulty = plain & ((red.mean(1) - level).abs() < 2)
        if faulty.any():
            photos = _FAULTS[fault](photos, faulty)
    return photos


def _sleep(seconds: float) -> Callable[[Tensor, Tensor], Tensor]:
    def sleep(photos: Tensor, faulty: Tensor) -> Tensor:
        time.sleep(seconds)
        return photos

    return sleep


def _raise(photos: Tensor, faulty: Tensor) -> Tensor:
    raise RuntimeError("boom")


def _kill(photos: Tensor, faulty: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    return photos


def _memory_error(photos: Tensor, faulty: Tensor) -> Tensor:
    """What Python says of an allocation that no machine can make."""
    if len(photos) > ENOUGH:
        bytearray(1 << 60)
    return photos


def _out_of_memory(photos: Tensor, faulty: Tensor) -> Tensor:
    """What torch says of one."""
    if len(photos) > ENOUGH:
        _insatiable(photos, faulty)
    return photos


def _insatiable(photos: Tensor, faulty: Tensor) -> Tensor:
    torch.empty(1 << 58, device=photos.device)
    return photos


def _nan(photos: Tensor, faulty: Tensor) -> Tensor:
    """Scores that are not finite: the pooling's sum overflows.

    NaN itself would not get so far; a fused activation makes a zero of it.
    """
    red = torch.tensor([3.3e38, -3.3e38, -3.3e38], device=photos.device).view(1, 3, 1, 1)
    return torch.where(faulty.view(-1, 1, 1, 1), red, photos)


_FAULTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "slow": _sleep(SLOW),
    "hang": _sleep(HANG),
    "raise": _raise,
    "kill": _kill,
    "memory_error": _memory_error,
    "out_of_memory": _out_of_memory,
    "insatiable": _insatiable,
    "nan": _nan,
}
