"""Networks of tokens and of channels last whose answers are known by construction.

Each patch of 16 x 16 pixels becomes its mean colour, and channel k of a colour is how much of
colour k it has. The score of class k is channel k's mean over the photo. A class token gets it by
attention to all patches alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.support.color_resnet import COLOR_VALUES, MEAN, STD

PATCH = 16
COLORS = len(COLOR_VALUES)


class _PatchEmbedding(nn.Conv2d):
    """Normalised photos (N, 3, H, W) -> how much of each colour a patch has, (N, 6, h, w)."""

    def __init__(self) -> None:
        super().__init__(3, COLORS, PATCH, PATCH)
        for k, rgb in enumerate(COLOR_VALUES.values()):
            colour = torch.tensor(rgb) / 255
            # No share of grey: the direction sums to zero.
            direction = colour - colour.mean()
            weight = (direction * STD).view(3, 1, 1).expand(3, PATCH, PATCH) / PATCH**2
            self.weight.data[k], self.bias.data[k] = weight, direction @ MEAN  # type: ignore[union-attr]


class Transformer(nn.Module):
    """Tokens behind ``prefix`` others, of which the first is the class token, if there is any.

    Args:
        prefix: the number of prefix tokens; without any, the tokens' mean is classified.
    """

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.embedding, self.prefix = _PatchEmbedding(), prefix
        self.before = nn.Parameter(torch.zeros(1, prefix, COLORS))
        self.norm = nn.Identity()
        self.attention = nn.MultiheadAttention(COLORS, 1, batch_first=True)
        self.head = nn.Linear(COLORS, COLORS)
        for parameter in (*self.attention.parameters(), *self.head.parameters()):
            parameter.data.zero_()
        # Queries and keys of zero attend to all tokens alike.
        self.attention.in_proj_weight.data[-COLORS:] = torch.eye(COLORS)
        self.attention.out_proj.weight.data.copy_(torch.eye(COLORS))
        self.head.weight.data.copy_(torch.eye(COLORS))

    def forward(self, photos: Tensor) -> Any:
        tokens = self.embedding(photos).relu().flatten(2).transpose(1, 2)
        if self.prefix:
            before = self.before.expand(photos.shape[0], -1, -1)
            tokens = torch.cat([before, tokens], dim=1)
        tokens = self.norm(tokens)
        attended = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return self.head(attended[:, 0] if self.prefix else attended.mean(1))


class ChannelsLast(nn.Module):
    """(N, h, w, 6), pooled and classified."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = _PatchEmbedding(), nn.Identity()
        self.head = nn.Linear(COLORS, COLORS)
        self.head.weight.data.copy_(torch.eye(COLORS))
        self.head.bias.data.zero_()

    def forward(self, photos: Tensor) -> Any:
        grid = self.norm(self.embedding(photos).relu().permute(0, 2, 3, 1))
        return self.head(grid.mean((1, 2)))
