"""A convolution fused with its batch norm, a residual sum and an activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

#: Elementwise, (N, K, h, w) -> (N, K, h, w); it may change its argument in place.
Activation = Callable[[Tensor], Tensor]


def _relu6(outputs: Tensor) -> Tensor:
    return F.hardtanh_(outputs, 0.0, 6.0)


def _silu(outputs: Tensor) -> Tensor:
    return F.silu(outputs, inplace=True)


def _hardswish(outputs: Tensor) -> Tensor:
    return F.hardswish(outputs, inplace=True)


#: By how a trace names them: a module's class, a function, or a method's name.
ACTIVATIONS: Final[dict[Any, Activation]] = {
    nn.ReLU: F.relu_, F.relu: F.relu_, F.relu_: F.relu_, torch.relu: F.relu_, torch.relu_: F.relu_,
    "relu": F.relu_, "relu_": F.relu_,
    nn.ReLU6: _relu6, F.relu6: _relu6,
    nn.SiLU: _silu, F.silu: _silu,
    nn.Hardswish: _hardswish, F.hardswish: _hardswish,
}  # fmt: skip


@dataclass(frozen=True)
class ConvParameters:
    """The arguments of ``F.conv2d``, with float32 weights.

    Attributes:
        weight: (K, C / groups, h, w).
        bias: (K,), or None.
        stride, padding, dilation: along rows and columns.
        groups: as of ``F.conv2d``.
    """

    weight: Tensor
    bias: Tensor | None
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def fold_batch_norm(self, norm: nn.BatchNorm2d) -> ConvParameters:
        """The convolution that computes this one followed by a batch norm in eval mode."""
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        scale = torch.rsqrt(variance + norm.eps)
        scale = scale if norm.weight is None else scale * norm.weight
        bias = -mean if self.bias is None else self.bias - mean
        bias = bias * scale
        bias = bias if norm.bias is None else bias + norm.bias
        return replace(self, weight=self.weight * scale.view(-1, 1, 1, 1), bias=bias)


class FusedConv2d(nn.Module):
    """A convolution, then an optional residual sum, then an optional activation.

    Args:
        convolution: with its batch norm folded in.
        activation: None for none.
        dtype: float32 or bfloat16, to compute in.
        bf16_safe: computing in bfloat16 keeps the network's answers.

    Attributes:
        dtype: of weights, input and output; float32 where it is not ``bf16_safe``.
        weight: (K, C / groups, h, w).
        bf16_safe: the argument.
    """

    def __init__(
        self,
        convolution: ConvParameters,
        activation: Activation | None,
        dtype: torch.dtype,
        bf16_safe: bool,
    ) -> None:
        super().__init__()
        self.bf16_safe = bf16_safe
        self.dtype = dtype if bf16_safe else torch.float32
        self._conv_args = (
            convolution.stride, convolution.padding, convolution.dilation, convolution.groups
        )  # fmt: skip
        self._activation = activation
        # Bias and sums stay in float32: a bias may be far larger than the value it is added to.
        bias = convolution.bias
        self._bias = None if bias is None else bias.detach().view(-1, 1, 1)
        weight = convolution.weight.detach()
        self.weight = weight.to(self.dtype, memory_format=torch.channels_last)

    def forward(self, inputs: Tensor, residual: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, K, h, w); a residual has the output's shape."""
        outputs = F.conv2d(inputs.to(self.dtype), self.weight, None, *self._conv_args).float()
        if self._bias is not None:
            outputs += self._bias
        if residual is not None:
            outputs += residual
        if self._activation is not None:
            outputs = self._activation(outputs)
        return outputs.to(self.dtype)
