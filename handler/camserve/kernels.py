"""Convolutions with what follows them, each as one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

_onednn: Final = torch.ops.mkldnn
_convolve: Final = _onednn._convolution_pointwise.default
_convolve_and_add: Final = _onednn._convolution_pointwise_.binary


@dataclass(frozen=True)
class Kernels:
    """What a trunk is to run in.

    Attributes:
        precision: float32 or bfloat16, of the convolutions that bear it.
        onednn: fused kernels of oneDNN; otherwise PyTorch's own, one after the other.
    """

    precision: torch.dtype
    onednn: bool


@dataclass(frozen=True)
class Activation:
    """What may follow a convolution: its name and scalars in oneDNN, and the same in PyTorch."""

    name: str
    scalars: tuple[float, ...]
    apply: Callable[[Tensor], Tensor]


NONE: Final = Activation("none", (), lambda outputs: outputs)
RELU: Final = Activation("relu", (), F.relu_)
_RELU6: Final = Activation("hardtanh", (0.0, 6.0), lambda outputs: F.hardtanh_(outputs, 0.0, 6.0))
_SILU: Final = Activation("swish", (), lambda outputs: F.silu(outputs, inplace=True))
_HARDSWISH: Final = Activation("hardswish", (), lambda outputs: F.hardswish(outputs, inplace=True))
#: By what stands in a trace: a module's class, a function, or a method's name.
ACTIVATIONS: Final[dict[Any, Activation]] = {
    nn.ReLU: RELU, F.relu: RELU, F.relu_: RELU, torch.relu: RELU, torch.relu_: RELU,
    "relu": RELU, "relu_": RELU,
    nn.ReLU6: _RELU6, F.relu6: _RELU6,
    nn.SiLU: _SILU, F.silu: _SILU,
    nn.Hardswish: _HARDSWISH, F.hardswish: _HARDSWISH,
}  # fmt: skip


@dataclass(frozen=True)
class Convolution:
    """A convolution as its operator takes it, with float32 weights."""

    weight: Tensor
    bias: Tensor | None
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def normalised(self, norm: nn.BatchNorm2d) -> Convolution:
        """Followed by a batch norm in eval mode, which is folded in."""
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        scale = torch.rsqrt(variance + norm.eps)
        scale = scale if norm.weight is None else scale * norm.weight
        bias = -mean if self.bias is None else self.bias - mean
        bias = bias * scale
        bias = bias if norm.bias is None else bias + norm.bias
        return replace(self, weight=self.weight * scale.view(-1, 1, 1, 1), bias=bias)


class Plain(nn.Module):
    """A convolution, perhaps added to another value, then an activation.

    Args:
        convolution, activation: of it.
        precision: of weights, input and output.
    """

    def __init__(
        self, convolution: Convolution, activation: Activation, precision: torch.dtype
    ) -> None:
        super().__init__()
        self.precision = precision
        self._how = (
            convolution.stride, convolution.padding, convolution.dilation, convolution.groups
        )  # fmt: skip
        self._apply_activation = activation.apply
        # In float32, as in oneDNN's sums: a bias may be far larger than what it is added to.
        self._bias = None if convolution.bias is None else convolution.bias.view(-1, 1, 1)
        self._weight = convolution.weight.to(precision, memory_format=torch.channels_last)

    def forward(self, inputs: Tensor, other: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, K, h, w)."""
        outputs = F.conv2d(inputs.to(self.precision), self._weight, None, *self._how).float()
        if self._bias is not None:
            outputs += self._bias
        if other is not None:
            outputs += other
        return self._apply_activation(outputs).to(self.precision)


class OneDnn(nn.Module):
    """The same as :class:`Plain` in one call of oneDNN.

    Args:
        convolution, activation, precision: as there.
        shape: of an input, (C, H, W).
        batch_size: the most samples of a pass.
        adds: there is another value to add.
        overwrites: that is needed by nothing else, so the sum may take its place.
    """

    def __init__(
        self,
        convolution: Convolution,
        activation: Activation,
        precision: torch.dtype,
        shape: Sequence[int],
        batch_size: int,
        adds: bool,
        overwrites: bool,
    ) -> None:
        super().__init__()
        self.precision = precision
        self._overwrites = overwrites
        self._how = (
            convolution.padding, convolution.stride, convolution.dilation, convolution.groups
        )  # fmt: skip
        after = activation.name, list(activation.scalars), ""
        # After a sum, none is not a name.
        self._after = (None, [], None) if adds and activation is NONE else after
        # Sums begin with it in float32: it may be far larger than what is added to it. With a
        # second summand, oneDNN takes none but one of the inputs' kind.
        bias = convolution.bias
        self._bias = bias if bias is None or not adds else bias.to(precision)
        weight = convolution.weight.to(precision)
        # The layout that is best for one sample may be another than that for many; a weight in the
        # wrong one is laid out anew at every call.
        one, many = (
            _onednn._reorder_convolution_weight(weight, *self._how, [size, *shape])
            for size in (1, batch_size)
        )
        layouts = [_onednn._get_mkldnn_serialized_md(packed) for packed in (one, many)]
        self._one, self._many = (many if torch.equal(*layouts) else one), many

    def forward(self, inputs: Tensor, other: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, K, h, w)."""
        if inputs.dtype is not self.precision:
            inputs = inputs.to(self.precision)
        weight = self._one if inputs.shape[0] == 1 else self._many
        if other is None:
            outputs = _convolve(inputs, weight, self._bias, *self._how, *self._after)
        else:
            sum = other.to(
                self.precision, copy=not self._overwrites, memory_format=torch.channels_last
            )
            outputs = _convolve_and_add(
                sum, inputs, weight, self._bias, *self._how, "add", 1.0, *self._after
            )
        return cast(Tensor, outputs)

    # No hook hangs on a kernel; for one photo, what nn.Module does around the call is felt.
    __call__ = forward
