"""Grad-CAM: the hook that holds a layer's activations, one short backward, the maps.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", arXiv 1610.02391, section 3.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from camserve.errors import SettingsError


@dataclass(frozen=True)
class Scores:
    """One forward pass, its head still on the tape.

    Attributes:
        logits: (N, C) class scores.
        activations: (N, K, h, w), the target layer's output; a leaf that the logits depend on.
    """

    logits: Tensor
    activations: Tensor


@dataclass(frozen=True)
class Maps:
    """One map for each of M pairs of sample and class.

    Attributes:
        values: (M, h, w) in [0, 1]; zeros where a map is constant.
        peak: (M,) the raw maximum, before normalisation, in logits per unit of activation.
        evidence: (M,) false where the map is constant, so that nothing speaks for the class.
    """

    values: Tensor
    peak: Tensor
    evidence: Tensor


# The leaves of the forward pass under way; None outside of one. A context variable, so that no
# pass sees another's, whatever thread or exception ends it.
_leaves: ContextVar[list[Tensor] | None] = ContextVar("leaves", default=None)


class TargetLayer:
    """The forward hook on one module that cuts the network into trunk and head.

    The module's output goes on as a fresh leaf that requires grad. Since no parameter does, the
    trunk before it leaves no tape, and a backward runs through the head alone.

    Args:
        network: a classifier in eval mode; all its parameters are frozen.
        name: the dotted name of a module whose output is (N, K, h, w).
        example: (1, 3, H, W) input on the network's device, for the forward pass that proves it.

    Attributes:
        name: of the layer.
        classes: C, the number of the network's class scores.

    Raises:
        SettingsError: no module of that name (the nearest names are given), or one that carries
            no map: called other than once, its output of another shape, the scores not depending
            on it.
    """

    classes: int

    def __init__(self, network: nn.Module, name: str, example: Tensor) -> None:
        self.name = name
        self._network = network.requires_grad_(False)
        # An activation may be changed in place after the layer; then a copy of the leaf goes on.
        self._copy = False
        self._handle = find_layer(network, name).register_forward_hook(self._cut)
        try:
            self._prove(example)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take the hook off the network."""
        self._handle.remove()

    def forward(self, inputs: Tensor) -> Scores:
        """Run the network on (N, 3, H, W) and keep what an explanation needs."""
        leaves: list[Tensor] = []
        token = _leaves.set(leaves)
        try:
            with torch.enable_grad():
                logits = self._network(inputs)
        finally:
            _leaves.reset(token)
        if len(leaves) != 1:
            raise SettingsError(
                f"layer {self.name!r} must run once in a forward pass, not {len(leaves)} times"
            )
        return Scores(logits, leaves[0])

    def _cut(self, module: nn.Module, args: Any, output: Any) -> Tensor | None:
        leaves = _leaves.get()
        if leaves is None:
            return None
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise SettingsError(
                f"layer {self.name!r} must give activations of shape (N, K, h, w), not {shape}"
            )
        # Not detach(): it shares a count of changes that the trunk's own may have raised.
        leaf = output.data.requires_grad_()
        leaves.append(leaf)
        return leaf.clone() if self._copy else leaf

    def _prove(self, example: Tensor) -> None:
        try:
            scores = self.forward(example)
            changed = scores.activations._version > 0
        except RuntimeError as failure:
            # What autograd says of an in-place operation on a leaf.
            if "in-place" not in str(failure):
                raise
            changed = True
        if changed:
            self._copy = True
            scores = self.forward(example)
        logits, activations = scores.logits, scores.activations
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise SettingsError("the network must give class scores of shape (N, C)")
        self.classes = logits.shape[1]
        (gradient,) = (
            torch.autograd.grad(logits.sum(), activations, allow_unused=True)
            if logits.requires_grad
            else (None,)
        )
        if gradient is None:
            raise SettingsError(f"the class scores do not depend on layer {self.name!r}")


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """The module of that dotted name.

    Raises:
        SettingsError: there is none; the nearest names are listed.
    """
    modules: dict[str, nn.Module] = dict(network.named_modules())
    modules.pop("")
    if name not in modules:
        nearest = difflib.get_close_matches(name, modules, n=5, cutoff=0.4) or list(modules)[-5:]
        raise SettingsError(
            f"the network has no layer {name!r}; the nearest names: {', '.join(nearest)}"
        )
    return modules[name]


def default_layer(network: nn.Module, example: Tensor) -> str:
    """The name of the last module whose output is a grid: the usual layer to explain.

    Of several modules that give that same output the outermost is taken; plain containers, pooling
    and what runs more than once are left aside: ``layer4.2`` in ResNet50, ``features.29`` in VGG16.

    Args:
        example: (1, 3, H, W).

    Raises:
        SettingsError: no module gives a (N, K, h, w) with h and w above 1.
    """
    pooling = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)
    last: list[str] = []
    ran: list[str] = []

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            ran.append(name)
            if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
                last.append(name)

        return hook

    with torch.no_grad(), ExitStack() as hooks:
        for name, module in network.named_modules():
            if name and type(module) is not nn.Sequential and not isinstance(module, pooling):
                hooks.callback(module.register_forward_hook(note(name)).remove)
        network(example)
    last = [name for name in last if ran.count(name) == 1]
    if not last:
        raise SettingsError("no module of the network gives a grid of activations to explain")
    # Outer modules end after inner ones, so of several with the same output it is the outermost.
    return last[-1]


def gradients(scores: Scores, samples: Tensor, classes: Tensor) -> Tensor:
    """The gradient of each sample's chosen logit with respect to its activations.

    One backward serves the whole batch: in eval mode samples do not mix, so the gradient of the
    sum of one logit per sample holds every sample's own.

    Args:
        scores: a forward pass over N samples; its tape is used up.
        samples: (M,) distinct sample indices.
        classes: (M,) class indices, one for each sample.

    Returns:
        (M, K, h, w).
    """
    chosen = scores.logits[samples, classes]
    (gradient,) = torch.autograd.grad(chosen.sum(), scores.activations)
    return gradient[samples]


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """ReLU(sum over k of alpha_k A^k), alpha_k the spatial mean of the gradient (eq. 1 and 2).

    Args:
        activations: (M, K, h, w).
        gradients: (M, K, h, w), of one class score each.

    Returns:
        (M, h, w), not negative.
    """
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return torch.relu((weights * activations).sum(dim=1))


def normalise(raw: Tensor) -> Maps:
    """Min-max normalisation of each (h, w) map of (M, h, w) to [0, 1]."""
    low = raw.amin(dim=(1, 2), keepdim=True)
    peak = raw.amax(dim=(1, 2), keepdim=True)
    evidence = peak > low
    spread = torch.where(evidence, peak - low, 1.0)
    return Maps((raw - low) / spread, peak.flatten(), evidence.flatten())
