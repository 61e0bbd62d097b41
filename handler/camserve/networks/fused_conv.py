"""A convolution with what follows it, as one module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


def _relu6(outputs: Tensor) -> Tensor:
    return F.hardtanh_(outputs, 0.0, 6.0)


def _silu(outputs: Tensor) -> Tensor:
    return F.silu(outputs, inplace=True)


def _hardswish(outputs: Tensor) -> Tensor:
    return F.hardswish(outputs, inplace=True)


#: By what stands in a trace: a module's class, a function, or a method's name.
ACTIVATIONS: Final[dict[Any, Activation]] = {
    nn.ReLU: F.relu_, F.relu: F.relu_, F.relu_: F.relu_, torch.relu: F.relu_, torch.relu_: F.relu_,
    "relu": F.relu_, "relu_": F.relu_,
    nn.ReLU6: _relu6, F.relu6: _relu6,
    nn.SiLU: _silu, F.silu: _silu,
    nn.Hardswish: _hardswish, F.hardswish: _hardswish,
}  # fmt: skip


@dataclass(frozen=True)
class ConvParameters:
    """A convolution as its operator takes it, with float32 weights."""

    weight: Tensor
    bias: Tensor | None
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def normalised(self, norm: nn.BatchNorm2d) -> ConvParameters:
        """Followed by a batch norm in eval mode, which is folded in."""
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        scale = torch.rsqrt(variance + norm.eps)
        scale = scale if norm.weight is None else scale * norm.weight
        bias = -mean if self.bias is None else self.bias - mean
        bias = bias * scale
        bias = bias if norm.bias is None else bias + norm.bias
        return replace(self, weight=self.weight * scale.view(-1, 1, 1, 1), bias=bias)


class FusedConv2d(nn.Module):
    """A convolution, perhaps added to another value, then perhaps an activation.

    Args:
        convolution: with its norm.
        activation: at the end.
        precision: that it is to compute in.
        bears_rounding: rounding what it multiplies leaves the network's answers as they are.

    Attributes:
        precision: of weights, input and output; float32 where it bears no other.
        weight: (K, C / groups, h, w).
    """

    def __init__(
        self,
        convolution: ConvParameters,
        activation: Activation | None,
        precision: torch.dtype,
        bears_rounding: bool,
    ) -> None:
        super().__init__()
        self.bears_rounding = bears_rounding
        self.precision = precision if bears_rounding else torch.float32
        self._how = (
            convolution.stride, convolution.padding, convolution.dilation, convolution.groups
        )  # fmt: skip
        self._activation = activation
        # In float32, as the sums are: a bias may be far larger than what it is added to.
        bias = convolution.bias
        self._bias = None if bias is None else bias.detach().view(-1, 1, 1)
        weight = convolution.weight.detach()
        self.weight = weight.to(self.precision, memory_format=torch.channels_last)

    def forward(self, inputs: Tensor, other: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, K, h, w)."""
        outputs = F.conv2d(inputs.to(self.precision), self.weight, None, *self._how).float()
        if self._bias is not None:
            outputs += self._bias
        if other is not None:
            outputs += other
        if self._activation is not None:
            outputs = self._activation(outputs)
        return outputs.to(self.precision)
