"""Grad-CAM's hooks: what holds the layers' activations, one short backward, normalised maps.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", arXiv 1610.02391, section 3. What a map is made of is in
:mod:`camserve.explain.methods`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from camserve.errors import SettingsError
from camserve.networks.layers import find_layer


@dataclass(frozen=True)
class Scores:
    """One forward pass, its head still on the tape.

    Attributes:
        logits: (N, C) class scores.
        activations: (N, K, h, w) by layer, the outputs that the logits depend on.
    """

    logits: Tensor
    activations: Mapping[str, Tensor]


@dataclass(frozen=True)
class Maps:
    """One map for each of M pairs of sample and score.

    Attributes:
        values: (M, h, w) in [0, 1]; zeros where a map is constant.
        peak: (M,) the raw maximum, before normalisation.
        evidence: (M,) false where the map is constant, so that nothing speaks for the class.
    """

    values: Tensor
    peak: Tensor
    evidence: Tensor

    @property
    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """``values``, ``peak`` and ``evidence``."""
        return self.values, self.peak, self.evidence


@dataclass(frozen=True)
class _Pass:
    """The forward pass under way: whose, the layers to hold, and every output of theirs so far."""

    hooks: TargetLayers
    wanted: Collection[str]
    outputs: dict[str, list[Tensor]] = field(default_factory=dict)


# None outside of a pass. A context variable, so that no pass sees another's, whatever thread or
# exception ends it.
_under_way: ContextVar[_Pass | None] = ContextVar("pass", default=None)


class TargetLayers:
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
                layer = names[name] if isinstance(names, Mapping) else find_layer(network, name)
                self._hooks.callback(layer.register_forward_hook(self._hook(name)).remove)
            for name in dict.fromkeys(names):
                self._prove(name, example)
            undo.pop_all()

    def close(self) -> None:
        """Take the hooks off the network."""
        self._hooks.close()

    def forward(self, inputs: Tensor, names: Collection[str]) -> Scores:
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
        return Scores(logits, held)

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


def gradients(
    scores: Scores,
    samples: Sequence[int],
    weights: Tensor,
    layers: Sequence[Sequence[str]],
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """The gradient of each chosen score with respect to its sample's activations.

    One backward serves the whole batch: in eval mode samples do not mix, so the gradient of the
    sum of one score per sample holds every sample's own. A sample with several scores has its
    second in the second backward, and so on. Each goes back to the earliest layer that one of its
    scores wants, and no further.

    Args:
        scores: a forward pass over N samples; its tape is used up.
        samples: the sample of each chosen score, M of them.
        weights: (M, C), by which its sample's logits add up to it: 1 for that of one class.
        layers: those whose gradients each chosen score wants.

    Yields:
        For each backward the places of the scores that it served, P of them, and by layer their
        gradients (P, K, h, w).
    """
    rounds: list[list[int]] = []
    turns: dict[int, int] = {}
    for place, sample in enumerate(samples):
        turn = turns.get(sample, 0)
        turns[sample] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(place)
    for n, places in enumerate(rounds):
        names = list(dict.fromkeys(name for place in places for name in layers[place]))
        rows = [samples[place] for place in places]
        of_places = rows_of(weights, places)
        if rows != list(range(len(scores.logits))):
            of_places = torch.zeros_like(scores.logits).index_copy(
                0, torch.tensor(rows, device=weights.device), of_places
            )
        found = torch.autograd.grad(
            scores.logits,
            [scores.activations[name] for name in names],
            of_places,
            retain_graph=n + 1 < len(rounds),
        )
        by_layer = zip(names, found, strict=True)
        yield places, {name: rows_of(gradient, rows) for name, gradient in by_layer}


def rows_of(values: Tensor, rows: Sequence[int]) -> Tensor:
    """Some rows of a tensor, in that order; not a copy but the tensor where they are all of it."""
    return values if list(rows) == list(range(len(values))) else values[rows]


def normalise(raw: Tensor) -> Maps:
    """Min-max normalisation of each (h, w) map of (M, h, w) to [0, 1]."""
    flat = raw.flatten(1)
    low, peak = flat.aminmax(dim=1, keepdim=True)
    spread = peak - low
    evidence = spread > 0
    values = (flat - low) / spread.where(evidence, 1)
    return Maps(values.view_as(raw), peak.squeeze(1), evidence.squeeze(1))
