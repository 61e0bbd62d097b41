"""The forward hooks of Grad-CAM, which cut a network into trunk and head at the target layer.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", arXiv 1610.02391, section 3. What a map is made of is in
:mod:`camserve.explain.methods`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from camserve.errors import SettingsError
from camserve.networks.layers import get_layer


@dataclass(frozen=True)
class ForwardOutput:
    """One forward pass, its head still on the tape.

    Attributes:
        logits: (N, C) class scores.
        activations: (N, K, h, w) by layer, the outputs that the logits depend on.
    """

    logits: Tensor
    activations: Mapping[str, Tensor]


@dataclass(frozen=True)
class _Pass:
    """The forward pass under way: whose, the layers to hold, and every output of theirs so far."""

    hooks: HookedNetwork
    wanted: Collection[str]
    outputs: dict[str, list[Tensor]] = field(default_factory=dict)


# None outside of a pass. A context variable, so that no pass sees another's, whatever thread or
# exception ends it.
_under_way: ContextVar[_Pass | None] = ContextVar("pass", default=None)


class HookedNetwork:
    """The forward hooks that cut the network into trunk and head.

    Of the layers that a pass wants, the first on each way through the network hands its output on
    as a fresh leaf that requires grad. Since no parameter does, the trunk before it leaves no tape,
    and a backward runs through the head alone. Those after it are held as they pass.

    Args:
        network: a classifier in eval mode; all its parameters are frozen.
        names: the dotted names of modules whose output is (N, K, h, w); or those modules by name,
            where the network knows them by another.
        example: (1, 3, H, W) input on the network's device, for the passes that prove them.

    Attributes:
        network: the classifier.
        shapes: (K, h, w) of each layer's output, by name.
        classes: C, the number of the network's class scores.

    Raises:
        SettingsError: no module of that name (the nearest names are given), or one that carries
            no map: called other than once, its output of another shape, the scores not depending
            on it.
    """

    classes: int

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str] | Mapping[str, nn.Module],
        example: Tensor,
    ) -> None:
        self.shapes: dict[str, tuple[int, int, int]] = {}
        self.network = network.requires_grad_(False)
        # An output may be changed in place after the layer; then a copy of it goes on.
        self._copied: set[str] = set()
        self._hooks = ExitStack()
        with ExitStack() as undo:
            undo.callback(self.close)
            for name in dict.fromkeys(names):
                layer = names[name] if isinstance(names, Mapping) else get_layer(network, name)
                self._hooks.callback(layer.register_forward_hook(self._hook(name)).remove)
            for name in dict.fromkeys(names):
                self._prove(name, example)
            undo.pop_all()

    def close(self) -> None:
        """Take the hooks off the network."""
        self._hooks.close()

    def forward(self, inputs: Tensor, names: Collection[str]) -> ForwardOutput:
        """Run the network on (N, 3, H, W) and keep what explanations at these layers need."""
        under_way = _Pass(self, names)
        token = _under_way.set(under_way)
        try:
            with torch.enable_grad():
                logits = self.network(inputs)
        finally:
            _under_way.reset(token)
        held = {}
        for name in names:
            outputs = under_way.outputs.get(name, [])
            if len(outputs) != 1:
                raise SettingsError(
                    f"layer {name!r} must run once in a forward pass, not {len(outputs)} times"
                )
            held[name] = outputs[0]
        return ForwardOutput(logits, held)

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], Tensor | None]:
        def hold(module: nn.Module, args: Any, output: Any) -> Tensor | None:
            under_way = _under_way.get()
            # Another's network may run the same module, as a fast trunk does.
            if under_way is None or under_way.hooks is not self or name not in under_way.wanted:
                return None
            if not isinstance(output, Tensor) or output.ndim != 4:
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise SettingsError(
                    f"layer {name!r} must give activations of shape (N, K, h, w), not {shape}"
                )
            # Not detach(): it shares a count of changes that the trunk's own may have raised.
            held = output if output.requires_grad else output.data.requires_grad_()
            under_way.outputs.setdefault(name, []).append(held)
            return held.clone() if name in self._copied else held

        return hold

    def _prove(self, name: str, example: Tensor) -> None:
        try:
            scores = self.forward(example, [name])
            changed = scores.activations[name]._version > 0
        except RuntimeError as failure:
            # What autograd says of an in-place operation on a leaf.
            if "in-place" not in str(failure):
                raise
            changed = True
        if changed:
            self._copied.add(name)
            scores = self.forward(example, [name])
        logits, activations = scores.logits, scores.activations[name]
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise SettingsError("the network must give class scores of shape (N, C)")
        self.classes = logits.shape[1]
        _, channels, height, width = activations.shape
        self.shapes[name] = channels, height, width
        (gradient,) = (
            torch.autograd.grad(logits.sum(), activations, allow_unused=True)
            if logits.requires_grad
            else (None,)
        )
        if gradient is None:
            raise SettingsError(f"the class scores do not depend on layer {name!r}")
