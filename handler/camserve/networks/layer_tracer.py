"""A tracer that marks the target layer's output, and refuses what a trace would leave out."""

from __future__ import annotations

from typing import Any, Final

from torch import fx, nn

#: Target of the node that marks the target layer's output in the trace.
TARGET_MARKER: Final = "target_layer"


class LayerTracer(fx.Tracer):
    """Adds a marker node after each call of a layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = layer
        self._refusals: list[fx.proxy.TraceError] = []

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        graph = super().trace(root, concrete_args)
        if self._refusals:
            # The network caught it, and went on with what it does where there is an error.
            raise self._refusals[0]
        return graph

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return TracerProxy(node, self)

    def refusal(self, reason: str) -> fx.proxy.TraceError:
        """The error that the network does what cannot be traced; it ends the trace in any case."""
        self._refusals.append(fx.proxy.TraceError(f"the network {reason}"))
        return self._refusals[0]

    def agreed(self, obj: fx.Proxy) -> Any:
        """The number that a value is, whatever the photos."""
        raise self.refusal("decides by values or shapes")

    def length(self, obj: fx.Proxy) -> int:
        """How many elements a value has."""
        raise self.refusal("asks for the length of a value")

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.agreed(obj))

    def call_module(self, m: nn.Module, *args: Any, **kwargs: Any) -> Any:
        output = super().call_module(m, *args, **kwargs)
        if m is self._layer:
            return self.create_proxy("call_module", TARGET_MARKER, (output,), {})
        return output


class TracerProxy(fx.Proxy):
    """A proxy whose conversions to numbers go by its tracer, which may refuse them."""

    tracer: LayerTracer

    def __len__(self) -> int:
        return self.tracer.length(self)

    def __int__(self) -> int:
        return int(self.tracer.agreed(self))

    def __float__(self) -> float:
        return float(self.tracer.agreed(self))

    def __index__(self) -> int:
        return int(self.tracer.agreed(self))
