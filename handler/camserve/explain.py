"""The scores of one forward pass -> every map that its photos' requests ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camserve import gradcam
from camserve.gradcam import Maps, Scores
from camserve.methods import METHODS
from camserve.options import Method
from camserve.targets import Class, Rank, Target


@dataclass(frozen=True)
class Wish:
    """What is to be explained of one photo.

    Attributes:
        targets: the scores; none where no explanation is asked for.
        layers: where; several are asked for to be averaged.
        method: how.
    """

    targets: tuple[Target, ...]
    layers: tuple[str, ...]
    method: Method


@dataclass(frozen=True)
class LayerMap:
    """One layer's map, on the host: ``values`` (h, w) in [0, 1]."""

    values: NDArray[np.float32]
    peak: float
    evidence: bool


@dataclass(frozen=True)
class Explained:
    """One score's maps.

    Attributes:
        class_id, against: the classes that the target came to, by index.
        maps: one for each layer that was asked for.
    """

    class_id: int
    against: int | None
    maps: tuple[LayerMap, ...]


@dataclass(frozen=True)
class Results:
    """What the network says of N photos, on the host.

    Attributes:
        logits, probabilities: (N, C).
        order: (N, C) each photo's classes, the one with the highest score first.
        explained: for each photo, each of its targets in order.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    order: NDArray[np.int64]
    explained: list[list[Explained]]


@dataclass(frozen=True)
class _Part:
    """The maps of one backward at one layer by one method; ``places`` of their scores."""

    places: Sequence[int]
    layer: str
    maps: Maps


def layers_of(wishes: Iterable[Wish]) -> tuple[str, ...]:
    """The layers that a forward pass for these wishes has to hold."""
    return tuple(dict.fromkeys(layer for wish in wishes if wish.targets for layer in wish.layers))


def explain(scores: Scores, wishes: Sequence[Wish]) -> Results:
    """Every score that was wished for, explained, and all scores beside.

    All is computed on the device, then brought to the host together.

    Args:
        scores: a forward pass over N photos that held :func:`layers_of` the wishes; its tape is
            used up.
        wishes: N of them.
    """
    logits = scores.logits.detach().float()
    # A stable sort: of equal scores the lower index comes first, as argmax has it.
    order = logits.argsort(dim=1, descending=True, stable=True)
    pairs = [(n, target) for n, wish in enumerate(wishes) for target in wish.targets]
    samples = [sample for sample, _ in pairs]
    contrasts = [place for place, (_, target) in enumerate(pairs) if target.against is not None]
    toward = _indices(order, samples, [target.toward for _, target in pairs])
    against = _indices(
        order,
        [samples[place] for place in contrasts],
        [other for _, target in pairs if (other := target.against) is not None],
    )
    parts: list[_Part] = []
    if pairs:
        weights = logits.new_zeros(len(pairs), logits.shape[1]).scatter_(1, toward[:, None], 1)
        if contrasts:
            rows = torch.tensor(contrasts, device=logits.device)
            weights.index_put_((rows, against), weights.new_tensor(-1), accumulate=True)
        parts = list(_maps(scores, samples, weights.to(scores.logits.dtype), wishes))
    host = _to_host(
        [logits, logits.softmax(dim=1), order, toward, against]
        + [column for part in parts for column in part.maps.columns]
    )
    of_photos = (next(host), next(host), next(host))
    toward_ids, against_ids = next(host).tolist(), next(host).tolist()
    found = {
        (place, part.layer): LayerMap(values, float(peak), bool(evidence))
        for part in parts
        for place, values, peak, evidence in zip(
            part.places, next(host), next(host), next(host), strict=True
        )
    }
    against_of = dict(zip(contrasts, against_ids, strict=True))
    explained: list[list[Explained]] = [[] for _ in wishes]
    for place, (sample, class_id) in enumerate(zip(samples, toward_ids, strict=True)):
        of_layers = tuple(found[place, layer] for layer in wishes[sample].layers)
        explained[sample].append(Explained(class_id, against_of.get(place), of_layers))
    return Results(*of_photos, explained)


def _to_host(tensors: Sequence[Tensor]) -> Iterator[NDArray[Any]]:
    """Tensors as arrays; the host waits for the device once, however many they are."""
    if tensors[0].device.type == "cpu":
        return (tensor.numpy() for tensor in tensors)
    # Only into pinned memory does a copy not wait by itself.
    copies = [torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in tensors]
    for copy, tensor in zip(copies, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    torch.cuda.synchronize(tensors[0].device)
    return (copy.numpy() for copy in copies)


def _indices(order: Tensor, samples: Sequence[int], classes: Sequence[Class]) -> Tensor:
    """(M,) class indices; a rank is looked up in its sample's order."""
    width = order.shape[1]
    ranked = [isinstance(one, Rank) for one in classes]
    numbers = torch.tensor(
        [
            sample * width + one.place if isinstance(one, Rank) else one
            for sample, one in zip(samples, classes, strict=True)
        ],
        dtype=torch.long,
        device=order.device,
    )
    if not any(ranked):
        return numbers
    found = order.take(numbers)
    if all(ranked):
        return found
    return torch.where(torch.tensor(ranked, device=order.device), found, numbers)


def _maps(
    scores: Scores, samples: Sequence[int], weights: Tensor, wishes: Sequence[Wish]
) -> Iterator[_Part]:
    """The map of each chosen score at each of its layers."""
    layers = [wishes[sample].layers for sample in samples]
    for places, gradients in gradcam.gradients(scores, samples, weights, layers):
        for layer, gradient in gradients.items():
            activations = scores.activations[layer].detach()
            for method, rows in _by_method(places, samples, layer, wishes).items():
                of_rows = gradcam.rows_of(activations, [samples[places[row]] for row in rows])
                raw = METHODS[method](of_rows.float(), gradcam.rows_of(gradient, rows).float())
                yield _Part([places[row] for row in rows], layer, gradcam.normalise(raw))


def _by_method(
    places: Sequence[int], samples: Sequence[int], layer: str, wishes: Sequence[Wish]
) -> dict[Method, list[int]]:
    """The rows of ``places`` whose photo wants this layer, by the method it wants."""
    rows: dict[Method, list[int]] = {}
    for row, place in enumerate(places):
        wish = wishes[samples[place]]
        if layer in wish.layers:
            rows.setdefault(wish.method, []).append(row)
    return rows
