"""A trunk compiled by OpenVINO: the whole of it as one graph for the processor at hand.

https://docs.openvino.ai/2026/openvino-workflow/running-inference/inference-devices-and-modes/cpu-device.html
"""

from __future__ import annotations

import mmap
import sys
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from types import FunctionType
from typing import Any, Final, cast

import torch
from torch import Tensor, fx, nn

from camserve.networks.fusion import kernels

# The one would tell its makers of each import; the other is a backend of torch.compile, which
# TorchServe's base handler loads where it can, and which nothing here needs.
for _unwanted in ("openvino_telemetry", "openvino.torch"):
    sys.modules.setdefault(_unwanted, cast(Any, None))
try:
    import openvino
    from openvino.preprocess import PrePostProcessor
except ImportError as failure:
    _missing = f"OpenVINO is not here: {failure}"
else:
    _missing = ""

# Of a cache line.
_ALIGNED: Final = 64
# Where functions come from that do the same to whatever photos.
_KNOWN: Final = {"torch", "torchvision", "operator", "_operator", "math"}


def unavailable_reason() -> str:
    """Why nothing can be compiled here; empty where it can."""
    return _missing


class OpenVINOModule(nn.Module):
    """A fused trunk, compiled; it leaves no tape.

    Every batch size has been met when it returns, and what that took of memory is given back.

    Args:
        trunk: of float32 kernels, (N, 3, H, W) -> (N, K, h, w). It is used up.
        example: (1, 3, H, W).
        batch_size: the most samples of a pass.
        threads: that compute one.
        rounded: all of it is computed in bfloat16; in float32 otherwise.

    Raises:
        RuntimeError: there is something in the trunk that OpenVINO has not, or would not do again,
            or it computes in other numbers here.
    """

    def __init__(
        self, trunk: fx.GraphModule, example: Tensor, batch_size: int, threads: int, rounded: bool
    ) -> None:
        super().__init__()
        for node in trunk.graph.nodes:
            if isinstance(node.target, FunctionType):
                name = f"{node.target.__module__}.{node.target.__qualname__}"
                if name.partition(".")[0] not in _KNOWN:
                    raise RuntimeError(f"it calls {name}, whose Python would run but once")
        self._shelf = _Shelf([kernel.weight for kernel in kernels(trunk)])
        for kernel, weight in zip(kernels(trunk), self._shelf.weights, strict=True):
            kernel.weight = weight
        how = {
            "INFERENCE_PRECISION_HINT": "bf16" if rounded else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Each worker would take the same cores for its own.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            compiled = openvino.Core().compile_model(_converted(trunk, example), "CPU", how)
        except Exception as failure:
            # Of its own classes; what it says begins with where in its code that was.
            why = str(failure).strip().splitlines()[-1].lstrip("- ")
            raise RuntimeError(f"OpenVINO cannot compile it: {why}") from None
        used = compiled.get_property("INFERENCE_PRECISION_HINT")
        if rounded and used != openvino.Type.bf16:
            raise RuntimeError(f"OpenVINO computes in {used.get_type_name()} here")
        self._request = compiled.create_infer_request()
        self._shape = compiled.output().partial_shape.get_min_shape()[1:]
        for size in range(1, batch_size + 1):
            self(example.expand(size, -1, -1, -1))
        self._shelf.put_back()

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, h, w)."""
        pixels = inputs.detach().permute(0, 2, 3, 1).contiguous()
        outputs = torch.empty(len(inputs), *self._shape)
        self._request.set_input_tensor(openvino.Tensor(pixels.numpy(), shared_memory=True))
        self._request.set_output_tensor(openvino.Tensor(outputs.numpy(), shared_memory=True))
        self._request.infer()
        return outputs.permute(0, 3, 1, 2)


def _converted(trunk: fx.GraphModule, example: Tensor) -> openvino.Model:
    """The same for batches of any size, (N, H, W, 3) -> (N, h, w, K)."""
    with warnings.catch_warnings():
        # PyTorch's: that its tracer is old, and that a trace may not be what it was made of.
        warnings.simplefilter("ignore")
        model = openvino.convert_model(trunk, example_input=example)
    model.reshape([-1, *example.shape[1:]])
    steps = PrePostProcessor(model)
    # As photos lie in memory, and as its convolutions want them.
    steps.input().tensor().set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.output().tensor().set_layout(openvino.Layout("NHWC"))
    steps.output().model().set_layout(openvino.Layout("NCHW"))
    return steps.build()


class _Shelf:
    """Weights in a file without a name, of which memory holds what is being read.

    OpenVINO lays weights out anew for its kernels, but keeps those it was given, in case that it
    meets another shape. Of a ResNet50 these are 94 MB that no request needs.

    Args:
        weights: float32 tensors.

    Attributes:
        weights: the same; in memory where there is no room for the file.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        # It would copy those with numbers that a processor is slow at, to make them zero.
        tiny = torch.finfo(torch.float32).tiny
        self.weights = [one.masked_fill(one.abs() < tiny, 0).contiguous() for one in weights]
        self._pages: mmap.mmap | None = None
        if not weights:
            return
        with suppress(OSError):
            self._pages, places = _written(self.weights)
            self.weights = [
                torch.frombuffer(
                    self._pages, dtype=torch.float32, count=one.numel(), offset=place
                ).view(one.shape)
                for place, one in zip(places, self.weights, strict=True)
            ]

    def put_back(self) -> None:
        """Let go of their memory until they are read again."""
        if self._pages is not None:
            self._pages.madvise(mmap.MADV_DONTNEED)


def _written(weights: Sequence[Tensor]) -> tuple[mmap.mmap, list[int]]:
    """A file that nobody else sees, in pages of memory, and where in it each tensor begins."""
    places = []
    with tempfile.TemporaryFile() as file:
        for weight in weights:
            file.write(bytes(-file.tell() % _ALIGNED))
            places.append(file.tell())
            file.write(weight.numpy().data)
        file.flush()
        return mmap.mmap(file.fileno(), 0), places
