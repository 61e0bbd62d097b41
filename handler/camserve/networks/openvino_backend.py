"""Runs a fused trunk as one graph that OpenVINO has compiled for this CPU.

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

from camserve.networks.fusion import fused_convolutions

#: Modules that OpenVINO would import: the telemetry that reports each import to its vendor, and a
#: backend for torch.compile, which TorchServe's base handler loads where it is there and which
#: nothing here uses.
_BLOCKED_IMPORTS: Final = ("openvino_telemetry", "openvino.torch")
for _module in _BLOCKED_IMPORTS:
    # None makes an import raise ImportError.
    sys.modules.setdefault(_module, cast(Any, None))
try:
    import openvino
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from openvino.preprocess import PrePostProcessor
except ImportError as failure:
    _unavailable = f"OpenVINO is not installed: {failure}"
else:
    _unavailable = ""

# Bytes; a cache line.
_ALIGNMENT: Final = 64
#: Top-level packages whose functions do the same for every input, so that a trace of a call holds
#: for all of them.
_TRACEABLE_PACKAGES: Final = {"torch", "torchvision", "operator", "_operator", "math"}


def unavailable_reason() -> str:
    """Why OpenVINO cannot be used; empty where it can."""
    return _unavailable


class OpenVINOModule(nn.Module):
    """A fused trunk, compiled for inference; autograd does not record it.

    The constructor runs every batch size once, so that no request waits for a kernel to be built,
    and then releases the memory of the original weights.

    Args:
        trunk: fused in float32, (N, C, H, W) -> a tensor or a tuple of them, with N rows each. The
            weights of its convolutions are replaced.
        example: (1, C, H, W).
        batch_size: the largest N of a forward pass; a larger one works, and builds its kernels
            then.
        threads: of the CPU for a forward pass.
        bfloat16: compute in bfloat16 instead of float32.

    Raises:
        RuntimeError: the trunk has an operation that OpenVINO does not support or would not repeat
            for each input, or this CPU does not compute in bfloat16.
    """

    def __init__(
        self, trunk: fx.GraphModule, example: Tensor, batch_size: int, threads: int, bfloat16: bool
    ) -> None:
        super().__init__()
        _check_traceable(trunk)
        convolutions = fused_convolutions(trunk)
        self._weights = _MemoryMappedWeights([fused.weight for fused in convolutions])
        for fused, weight in zip(convolutions, self._weights.tensors, strict=True):
            fused.weight = weight
        config = {
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # With pinning, all workers would be pinned to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            model = _convert(trunk, example)
            compiled = openvino.Core().compile_model(model, "CPU", config)
        except Exception as failure:
            # OpenVINO has exception classes of its own; their messages start with a location in its
            # source code.
            message = str(failure).strip().splitlines()[-1].lstrip("- ")
            raise RuntimeError(f"OpenVINO cannot compile the trunk: {message}") from None
        used = compiled.get_property("INFERENCE_PRECISION_HINT")
        if bfloat16 and used != openvino.Type.bf16:
            raise RuntimeError(f"OpenVINO computes in {used.get_type_name()} on this CPU, not bf16")
        self._request = compiled.create_infer_request()
        self._shapes = [output.partial_shape.get_min_shape()[1:] for output in compiled.outputs]
        for size in range(1, batch_size + 1):
            self(example.expand(size, -1, -1, -1))
        self._weights.evict()

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, C, H, W) -> the trunk's outputs in float32; of four axes, channels last in memory."""
        pixels = inputs.detach().permute(0, 2, 3, 1).contiguous()
        outputs = [torch.empty(len(inputs), *shape) for shape in self._shapes]
        self._request.set_input_tensor(openvino.Tensor(pixels.numpy(), shared_memory=True))
        for n, output in enumerate(outputs):
            tensor = openvino.Tensor(output.numpy(), shared_memory=True)
            self._request.set_output_tensor(n, tensor)
        self._request.infer()
        results = [output.permute(0, 3, 1, 2) if output.ndim == 4 else output for output in outputs]
        return results[0] if len(results) == 1 else tuple(results)


def _check_traceable(trunk: fx.GraphModule) -> None:
    """Reject calls of Python functions that may do something else for each input.

    Raises:
        RuntimeError: there is such a call.
    """
    for node in trunk.graph.nodes:
        if isinstance(node.target, FunctionType):
            name = f"{node.target.__module__}.{node.target.__qualname__}"
            if name.partition(".")[0] not in _TRACEABLE_PACKAGES:
                raise RuntimeError(
                    f"the trunk calls the Python function {name}, which OpenVINO would run only "
                    "once, while it traces the trunk"
                )


def _convert(trunk: fx.GraphModule, example: Tensor) -> openvino.Model:
    """The trunk as an OpenVINO model for batches of any size, (N, H, W, C) -> its outputs.

    Those of four axes, (N, K, h, w), become (N, h, w, K).
    """
    with warnings.catch_warnings():
        # PyTorch warns that torch.jit.trace is deprecated, and that a trace may not generalize.
        warnings.simplefilter("ignore")
        # PyTorch's own check of the trace would run the trunk twice more, and what is compiled is
        # compared with the original network in any case.
        traced = TorchScriptPythonDecoder(
            trunk, example_input=example, trace_kwargs={"check_trace": False}
        )
        model = openvino.convert_model(traced, example_input=example)
    model.reshape([-1, *example.shape[1:]])
    steps = PrePostProcessor(model)
    # Photos are channels last in memory, and OpenVINO's convolution kernels want them so.
    steps.input().tensor().set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    for n, output in enumerate(model.outputs):
        if len(output.partial_shape) == 4:
            steps.output(n).tensor().set_layout(openvino.Layout("NHWC"))
            steps.output(n).model().set_layout(openvino.Layout("NCHW"))
    return steps.build()


class _MemoryMappedWeights:
    """Copies of weights in an unnamed temporary file, mapped into memory.

    OpenVINO copies weights into the layout of its kernels, but keeps the originals for input shapes
    that it has no kernels for yet. For a ResNet50 these are 94 MB that no request needs. In a
    mapped file, their memory can be released.

    Args:
        tensors: float32.

    Attributes:
        tensors: the same values; in ordinary memory where the file cannot be written.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        # OpenVINO would copy weights that have subnormal numbers, to make those zero.
        tiny = torch.finfo(torch.float32).tiny
        self.tensors = [
            tensor.masked_fill(tensor.abs() < tiny, 0).contiguous() for tensor in tensors
        ]
        self._pages: mmap.mmap | None = None
        if not tensors:
            return
        with suppress(OSError):
            self._pages, offsets = _write_to_tempfile(self.tensors)
            self.tensors = [
                torch.frombuffer(
                    self._pages, dtype=torch.float32, count=tensor.numel(), offset=offset
                ).view(tensor.shape)
                for offset, tensor in zip(offsets, self.tensors, strict=True)
            ]

    def evict(self) -> None:
        """Release the memory; the next read loads it from the file again."""
        if self._pages is not None:
            self._pages.madvise(mmap.MADV_DONTNEED)


def _write_to_tempfile(tensors: Sequence[Tensor]) -> tuple[mmap.mmap, list[int]]:
    """The mapped file, and the offset of each tensor in it, in bytes."""
    offsets = []
    with tempfile.TemporaryFile() as file:
        for tensor in tensors:
            file.write(bytes(-file.tell() % _ALIGNMENT))
            offsets.append(file.tell())
            file.write(tensor.numpy().data)
        file.flush()
        return mmap.mmap(file.fileno(), 0), offsets
