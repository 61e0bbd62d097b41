"""The scores of one forward pass -> every map that its photos' requests ask for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camserve.explain import backward, maps
from camserve.explain.hooks import ForwardOutput
from camserve.explain.maps import Maps
from camserve.explain.methods import METHODS
from camserve.explain.targets import ClassRef, Target, TopRank
from camserve.options import Method


@dataclass(frozen=True)
class ExplanationRequest:
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
class ScoreExplanation:
    """One score's maps.

    Attributes:
        class_id, against: the classes that the target came to, by index.
        maps: one for each layer that was asked for.
    """

    class_id: int
    against: int | None
    maps: tuple[LayerMap, ...]


@dataclass(frozen=True)
class BatchExplanations:
    """What the network says of N photos, on the host.

    Attributes:
        logits, probabilities: (N, C).
        order: (N, C) each photo's classes, the one with the highest score first.
        explained: for each photo, each of its targets in order.
        finite: for each photo, whether all its scores and maps are made of finite numbers.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    order: NDArray[np.int64]
    explained: list[list[ScoreExplanation]]
    finite: list[bool]


@dataclass(frozen=True)
class _Part:
    """The maps of one backward at one layer by one method; ``places`` of their scores."""

    places: Sequence[int]
    layer: str
    maps: Maps


def required_layers(wishes: Iterable[ExplanationRequest]) -> tuple[str, ...]:
    """The layers that a forward pass for these wishes has to hold."""
    return tuple(dict.fromkeys(layer for wish in wishes if wish.targets for layer in wish.layers))


def explain_batch(scores: ForwardOutput, wishes: Sequence[ExplanationRequest]) -> BatchExplanations:
    """Every score that was wished for, explained, and all scores beside.

    All is computed on the device, then brought to the host together.

    Args:
        scores: a forward pass over N photos that held the :func:`required_layers`; its tape is used
            up.
        wishes: N of them.
    """
    logits = scores.logits.detach().float()
    # A stable sort: of equal scores the lower index comes first, as argmax has it.
    order = logits.argsort(dim=1, descending=True, stable=True)
    pairs = [(n, target) for n, wish in enumerate(wishes) for target in wish.targets]
    samples = [sample for sample, _ in pairs]
    contrasts = [place for place, (_, target) in enumerate(pairs) if target.against is not None]
    classes = _indices(
        order,
        samples + [samples[place] for place in contrasts],
        [target.class_ref for _, target in pairs]
        + [other for _, target in pairs if (other := target.against) is not None],
    )
    parts: list[_Part] = []
    if pairs:
        weights = _weights(scores.logits, classes[: len(pairs)], contrasts, classes[len(pairs) :])
        parts = list(_maps(scores, samples, weights, wishes))
    host = _to_host(
        [logits, logits.softmax(dim=1), order, classes]
        + [column for part in parts for column in part.maps.columns]
    )
    raw, probabilities, ranked = next(host), next(host), next(host)
    ids = next(host).tolist()
    found = {
        (place, part.layer): LayerMap(values, float(peak), bool(evidence))
        for part in parts
        for place, values, peak, evidence in zip(
            part.places, next(host), next(host), next(host), strict=True
        )
    }
    against_of = dict(zip(contrasts, ids[len(pairs) :], strict=True))
    explained: list[list[ScoreExplanation]] = [[] for _ in wishes]
    for place, (sample, class_id) in enumerate(zip(samples, ids[: len(pairs)], strict=True)):
        of_layers = tuple(found[place, layer] for layer in wishes[sample].layers)
        explained[sample].append(ScoreExplanation(class_id, against_of.get(place), of_layers))
    finite = [
        _finite(of_photo, by_rank, maps)
        for of_photo, by_rank, maps in zip(raw, ranked, explained, strict=True)
    ]
    return BatchExplanations(raw, probabilities, ranked, explained, finite)


def _weights(logits: Tensor, toward: Tensor, contrasts: Sequence[int], against: Tensor) -> Tensor:
    """(M, C): by what its photo's logits (C,) add up to each of M scores.

    Args:
        toward: (M,) the class of each.
        contrasts: the places of those that another class's score is taken from.
        against: these classes.
    """
    weights = logits.new_zeros(len(toward), logits.shape[1]).scatter_(1, toward.unsqueeze(1), 1)
    if contrasts:
        rows = torch.tensor(contrasts, device=logits.device)
        weights.index_put_((rows, against), weights.new_tensor(-1), accumulate=True)
    return weights


def _finite(
    logits: NDArray[np.float32], order: NDArray[np.int64], explained: Sequence[ScoreExplanation]
) -> bool:
    """Whether a photo's logits (C,), whose classes are in ``order``, and its maps' peaks are."""
    # In order, what is not finite stands at one of the ends.
    found = [float(logits[order[0]]), float(logits[order[-1]])]
    found += [map.peak for one in explained for map in one.maps]
    return all(math.isfinite(value) for value in found)


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


def _indices(order: Tensor, samples: Sequence[int], classes: Sequence[ClassRef]) -> Tensor:
    """(M,) class indices; a rank is looked up in its sample's order."""
    width = order.shape[1]
    ranked = [isinstance(one, TopRank) for one in classes]
    numbers = torch.tensor(
        [
            sample * width + one.rank if isinstance(one, TopRank) else one
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
    scores: ForwardOutput,
    samples: Sequence[int],
    weights: Tensor,
    wishes: Sequence[ExplanationRequest],
) -> Iterator[_Part]:
    """The map of each chosen score at each of its layers."""
    layers = [wishes[sample].layers for sample in samples]
    for places, gradients in backward.score_gradients(scores, samples, weights, layers):
        for layer, gradient in gradients.items():
            activations = scores.activations[layer].detach()
            for method, rows in _by_method(places, samples, layer, wishes).items():
                of_rows = backward.select_rows(activations, [samples[places[row]] for row in rows])
                raw = METHODS[method](of_rows.float(), backward.select_rows(gradient, rows).float())
                yield _Part([places[row] for row in rows], layer, maps.normalise_maps(raw))


def _by_method(
    places: Sequence[int], samples: Sequence[int], layer: str, wishes: Sequence[ExplanationRequest]
) -> dict[Method, list[int]]:
    """The rows of ``places`` whose photo wants this layer, by the method it wants."""
    rows: dict[Method, list[int]] = {}
    for row, place in enumerate(places):
        wish = wishes[samples[place]]
        if layer in wish.layers:
            rows.setdefault(wish.method, []).append(row)
    return rows
