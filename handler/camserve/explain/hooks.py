"""The forward hooks of Grad-CAM, which cut a network into trunk and head at the target layer.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", arXiv 1610.02391, section 3. How a map is made of activations and gradients is in
:mod:`camserve.explain.methods`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from camserve.errors import SettingsError, describe_exception
from camserve.explain.rounding import RoundingErrors
from camserve.networks import GradientsStayOn, GridLayout, get_layer


@dataclass(frozen=True)
class ForwardOutput:
    """One forward pass whose head autograd has recorded.

    Attributes:
        logits: (N, C) class scores.
        activations: by layer, the outputs that the logits depend on.
        layouts: by layer, how its output, and its gradient, is a grid (N, K, h, w).
        rounding: by layer, the rounding errors of its grid.
        biases: by layer, b (C,) where the logits are b + w . mean(A) of its grid A; layers that are
            followed by something else are left out.
    """

    logits: Tensor
    activations: Mapping[str, Tensor]
    layouts: Mapping[str, GridLayout]
    rounding: Mapping[str, RoundingErrors]
    biases: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class _ForwardContext:
    """A running forward pass.

    Attributes:
        hooks: whose pass it is.
        layers: the names of the layers to capture.
        outputs: by layer, every output so far.
    """

    hooks: HookedNetwork
    layers: Collection[str]
    outputs: dict[str, list[Tensor]] = field(default_factory=dict)


# None outside of a forward pass. A context variable: passes in several threads do not see each
# other's, and an exception leaves nothing behind.
_current_forward: ContextVar[_ForwardContext | None] = ContextVar("forward", default=None)


class _InferenceTensorError(Exception):
    """A layer's output was computed under ``torch.inference_mode``: no gradient can pass it."""


class HookedNetwork:
    """A network with the forward hooks that cut it into trunk and head.

    Of the layers that a forward pass captures, the first on each path through the network passes
    its output on as a fresh leaf that requires grad. Since no parameter does, autograd records
    nothing of the trunk before it, and a backward pass runs through the head alone. The outputs of
    later layers are captured as they are.

    Args:
        network: a classifier in eval mode; all its parameters are frozen.
        names: the dotted names of modules; or a mapping from a layer's name to its module, where
            that has another name in the network.
        example: (1, C, H, W) input on the network's device, for the passes that validate the
            layers.
        layouts: by name, how a layer's output is a grid; of one that is not there it is
            (N, K, h, w).
        bfloat16: whether the network computes any layer's output in bfloat16.
        biases: as of :class:`ForwardOutput`.

    Attributes:
        network: the classifier.
        layouts: of each layer, by name.

    Raises:
        SettingsError: no module has such a name (the nearest names are given), or a layer cannot be
            explained: it runs other than once, its output has another shape, or the scores do not
            depend on it.
    """

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str] | Mapping[str, nn.Module],
        example: Tensor,
        layouts: Mapping[str, GridLayout] | None = None,
        *,
        bfloat16: bool = False,
        biases: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.layouts = {name: layouts[name] for name in names if name in layouts} if layouts else {}
        self.network = network.requires_grad_(False)
        self._rounding: dict[str, RoundingErrors] = {}
        self._bfloat16 = bfloat16
        self._biases = dict(biases or {})
        # Whether the network switches the recording of gradients off in its forward.
        self._switches_off_gradients = False
        # The layers whose output is changed in place later on, so that a clone is passed on.
        self._cloned_layers: set[str] = set()
        self._hooks = ExitStack()
        with ExitStack() as undo:
            undo.callback(self.close)
            for name in dict.fromkeys(names):
                layer = names[name] if isinstance(names, Mapping) else get_layer(network, name)
                self._hooks.callback(layer.register_forward_hook(self._hook(name)).remove)
            for name in dict.fromkeys(names):
                self._validate_layer(name, example)
            undo.pop_all()

    def close(self) -> None:
        """Remove the hooks from the network."""
        self._hooks.close()

    def forward(self, inputs: Tensor, names: Collection[str]) -> ForwardOutput:
        """Run the network on (N, C, H, W) and capture the layers of these names.

        Raises:
            SettingsError: a layer did not run once, or returns no tensor.
        """
        context = _ForwardContext(self, names)
        token = _current_forward.set(context)
        try:
            with torch.enable_grad(), self._gradient_mode():
                logits = self.network(inputs)
        except _InferenceTensorError:
            self._switches_off_gradients = True
            return self.forward(inputs, names)
        finally:
            _current_forward.reset(token)
        activations = {}
        for name in names:
            outputs = context.outputs.get(name, [])
            if len(outputs) != 1:
                raise SettingsError(
                    f"layer {name!r} must run once in a forward pass, not {len(outputs)} times"
                )
            activations[name] = outputs[0]
        return ForwardOutput(logits, activations, self.layouts, self._rounding, self._biases)

    def _gradient_mode(self) -> AbstractContextManager[object]:
        return GradientsStayOn() if self._switches_off_gradients else nullcontext()

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], Tensor | None]:
        """The forward hook of a layer: captures its output in a forward pass that asks for it."""

        def capture(module: nn.Module, args: Any, output: Any) -> Tensor | None:
            context = _current_forward.get()
            # Another HookedNetwork may share the module, as an accelerated one does.
            if context is None or context.hooks is not self or name not in context.layers:
                return None
            if not isinstance(output, Tensor):
                raise SettingsError(
                    f"layer {name!r} must return a tensor, not {type(output).__name__}"
                )
            if output.is_inference():
                raise _InferenceTensorError
            # Not detach(): its result shares the version counter of the trunk's output, which
            # in-place operations in the trunk may have raised; _validate_layer needs one at 0.
            leaf = output if output.requires_grad else output.data.requires_grad_()
            context.outputs.setdefault(name, []).append(leaf)
            return leaf.clone() if name in self._cloned_layers else leaf

        return capture

    def _validate_layer(self, name: str, example: Tensor) -> None:
        """Run forward and backward at one layer: sets its layout, and whether it is cloned.

        Raises:
            SettingsError: the layer cannot be explained.
        """
        try:
            output = self.forward(example, [name])
            changed_in_place = output.activations[name]._version > 0
        except RuntimeError as failure:
            # Autograd's message for an in-place operation on a leaf that requires grad.
            if "in-place" not in str(failure):
                raise _not_differentiable(name, failure) from None
            changed_in_place = True
        if changed_in_place:
            self._cloned_layers.add(name)
            output = self.forward(example, [name])
        logits, activations = output.logits, output.activations[name]
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise SettingsError("the network must give class scores of shape (N, C)")
        if name not in self.layouts:
            if activations.ndim != 4:
                raise SettingsError(
                    f"layer {name!r} must give activations of shape (N, K, h, w), not "
                    f"{tuple(activations.shape)}"
                )
            self.layouts[name] = GridLayout("grid", *activations.shape[1:])
        if not logits.requires_grad and not self._switches_off_gradients:
            self._switches_off_gradients = True
            self._validate_layer(name, example)
            return
        gradient = None
        if logits.requires_grad:
            try:
                with torch.enable_grad():
                    total = logits.sum()
                (gradient,) = torch.autograd.grad(total, activations, allow_unused=True)
            except RuntimeError as failure:
                raise _not_differentiable(name, failure) from None
        if gradient is None:
            raise SettingsError(
                f"the class scores do not depend on layer {name!r}, or not by operations that "
                "PyTorch differentiates; accepted: a layer that they are computed from, in a "
                "forward without detach(), .data, .numpy() or argmax() after it"
            )
        grid = self.layouts[name].to_grid(activations.detach())
        self._rounding[name] = RoundingErrors.of(grid, self._bfloat16)


def _not_differentiable(layer: str, failure: RuntimeError) -> SettingsError:
    return SettingsError(
        f"the gradient of the class scores at layer {layer!r} cannot be computed: "
        f"{describe_exception(failure)}; accepted: a network that PyTorch differentiates"
    )
