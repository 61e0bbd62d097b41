"""A tracer for networks whose forward asks for the shapes of its tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree as pytree

from camserve.networks.layer_tracer import TARGET_MARKER, LayerTracer, TracerProxy

#: Samples that a traced network is given: what is the same for all holds for a batch of any size.
_BATCH_SIZES: Final = (1, 2, 7)
#: Names of what every tensor says of itself, whatever the batch.
_CONSTANTS: Final = ("dtype", "device", "ndim", "is_cuda", "requires_grad")
#: Methods of a tensor that take sizes, as that of a batch.
_SIZED: Final = ("expand", "repeat", "reshape", "view")


class ShapeTracer(LayerTracer):
    """Knows, of each value in the trace, what it is for an example; of a tensor its shape alone.

    A forward asks whether a photo has the right height, or rounds a fraction of its width. Most of
    such questions are not on the number of samples: they are answered for several numbers, and the
    answers must agree.
    """

    def __init__(self, layer: nn.Module, example: Tensor) -> None:
        super().__init__(layer)
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._photos = [
            self._mode.from_tensor(example.expand(size, -1, -1, -1)) for size in _BATCH_SIZES
        ]
        self._values: dict[fx.Node, tuple[Any, ...]] = {}
        self._computing = False

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        with self._constants_recorded():
            return super().trace(root, concrete_args)

    @contextmanager
    def _constants_recorded(self) -> Iterator[None]:
        """Record methods of tensors that are in no trace, where they take a size that is in it.

        A Swin's attention mask is made from numbers alone, and repeated for each sample.
        """

        def recording(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
            def record(tensor: Tensor, *sizes: Any, **kwargs: Any) -> Any:
                if any(isinstance(size, fx.Proxy) for size in pytree.tree_leaves(sizes)):
                    return self.create_proxy("call_method", name, (tensor, *sizes), kwargs)
                return method(tensor, *sizes, **kwargs)

            return record

        with ExitStack() as stack:
            for name in _SIZED:
                # Inherited: what is deleted at the end is the recording method alone.
                setattr(Tensor, name, recording(name, getattr(Tensor, name)))
                stack.callback(delattr, Tensor, name)
            yield

    def values(self, node: fx.Node) -> tuple[Any, ...]:
        """A node's value for each number of samples."""
        return self._values[node]

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _ShapeProxy(node, self)

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(kind, *args, **kwargs)
        if kind == "placeholder":
            self._values[node] = (*self._photos,)
        elif kind != "output":
            self._values[node] = tuple(self._compute(node, n) for n in range(len(_BATCH_SIZES)))
        return node

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self._computing:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if self._computing:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        return iter([obj[index] for index in range(self.length(obj))])  # type: ignore[index]

    def length(self, obj: fx.Proxy) -> int:
        """How many elements a value has.

        Raises:
            TraceError: that depends on the batch size.
        """
        lengths = {len(value) for value in self.values(obj.node)}
        if len(lengths) > 1:
            raise self.refusal("loops over the samples of a batch")
        return lengths.pop()

    def agreed(self, obj: fx.Proxy) -> Any:
        """A number that is the same for each number of samples.

        Raises:
            TraceError: it is not, or it is a tensor.
        """
        first, *others = self.values(obj.node)
        if isinstance(first, Tensor):
            raise self.refusal("decides by the values of a tensor")
        if any(other != first for other in others):
            raise self.refusal("decides by the size of the batch")
        return first

    def _compute(self, node: fx.Node, n: int) -> Any:
        """A node's value for the n-th number of samples."""
        args, kwargs = fx.node.map_arg(
            (node.args, node.kwargs), lambda argument: self._values[argument][n]
        )
        self._computing = True
        try:
            with self._mode, torch.no_grad():
                return self._call(node, args, kwargs)
        finally:
            self._computing = False

    def _call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        target: Any = node.target
        if target == TARGET_MARKER:
            return args[0]
        match node.op:
            case "call_function":
                return target(*args, **kwargs)
            case "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            case "call_module":
                return self.root.get_submodule(target).forward(*args, **kwargs)
            case _:
                return self._mode.from_tensor(operator.attrgetter(target)(self.root))


class _ShapeProxy(TracerProxy):
    """A proxy that answers what does not depend on the batch, and records what does."""

    tracer: ShapeTracer

    def __getattr__(self, name: str) -> Any:
        if name in (*_CONSTANTS, "shape", "size", "dim"):
            value = self.tracer.values(self.node)[0]
            if isinstance(value, Tensor):
                return self._of_tensor(name, value)
        return super().__getattr__(name)

    def _of_tensor(self, name: str, value: Tensor) -> Any:
        if name == "dim":
            return lambda: value.ndim
        if name == "size":
            return lambda dim=None: self._shape() if dim is None else self._shape()[dim]
        return self._shape() if name == "shape" else getattr(value, name)

    def _shape(self) -> tuple[Any, ...]:
        """The tensor's shape: numbers, and a proxy for each that depends on the batch."""
        shapes = [value.shape for value in self.tracer.values(self.node)]
        recorded: Any = super().__getattr__("shape")
        return tuple(
            sizes[0] if len({*sizes}) == 1 else recorded[axis]
            for axis, sizes in enumerate(zip(*shapes, strict=True))
        )
