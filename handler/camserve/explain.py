"""The scores of one forward pass -> every map that its photos' requests ask for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camserve import gradcam
from camserve.gradcam import Scores
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


def layers_of(wishes: Iterable[Wish]) -> tuple[str, ...]:
    """The layers that a forward pass for these wishes has to hold."""
    return tuple(dict.fromkeys(layer for wish in wishes if wish.targets for layer in wish.layers))


def explain(scores: Scores, order: Tensor, wishes: Sequence[Wish]) -> list[list[Explained]]:
    """Every score that was wished for, explained: for each photo, for each target in its order.

    Args:
        scores: a forward pass over N photos that held :func:`layers_of` the wishes; its tape is
            used up.
        order: (N, C) each photo's classes, the one with the highest score first.
        wishes: N of them.
    """
    pairs = [(n, target) for n, wish in enumerate(wishes) for target in wish.targets]
    if not pairs:
        return [[] for _ in wishes]
    samples = [sample for sample, _ in pairs]
    toward = _indices(order, samples, [target.toward for _, target in pairs])
    contrasts = [place for place, (_, target) in enumerate(pairs) if target.against is not None]
    against = _indices(
        order,
        [samples[place] for place in contrasts],
        [other for _, target in pairs if (other := target.against) is not None],
    )
    chosen = scores.logits[samples, toward]
    if contrasts:
        others = scores.logits[[samples[place] for place in contrasts], against]
        chosen = chosen.index_add(0, torch.tensor(contrasts, device=chosen.device), -others)
    maps = _maps(scores, samples, chosen, wishes)
    against_of = dict(zip(contrasts, against.tolist(), strict=True))
    explained: list[list[Explained]] = [[] for _ in wishes]
    for place, (sample, class_id) in enumerate(zip(samples, toward.tolist(), strict=True)):
        of_layers = tuple(maps[place, layer] for layer in wishes[sample].layers)
        explained[sample].append(Explained(class_id, against_of.get(place), of_layers))
    return explained


def _indices(order: Tensor, samples: Sequence[int], classes: Sequence[Class]) -> Tensor:
    """(M,) class indices; a rank is looked up in its sample's order."""
    device = order.device
    ranked = torch.tensor(
        [isinstance(one, Rank) for one in classes], dtype=torch.bool, device=device
    )
    numbers = torch.tensor(
        [one.place if isinstance(one, Rank) else one for one in classes],
        dtype=torch.long,
        device=device,
    )
    return torch.where(ranked, order[list(samples), numbers], numbers)


def _maps(
    scores: Scores, samples: Sequence[int], chosen: Tensor, wishes: Sequence[Wish]
) -> dict[tuple[int, str], LayerMap]:
    """The map of each chosen score at each of its layers, by the score's place and the layer."""
    found: dict[tuple[int, str], LayerMap] = {}
    layers = [wishes[sample].layers for sample in samples]
    for places, gradients in gradcam.gradients(scores, samples, chosen, layers):
        for layer, gradient in gradients.items():
            activations = scores.activations[layer].detach()
            for method, rows in _by_method(places, samples, layer, wishes).items():
                of_rows = activations[[samples[places[row]] for row in rows]]
                raw = METHODS[method](of_rows.float(), gradient[rows].float())
                maps = gradcam.normalise(raw)
                columns = (maps.values, maps.peak, maps.evidence)
                values, peaks, evidence = (column.cpu().numpy() for column in columns)
                for n, row in enumerate(rows):
                    found[places[row], layer] = LayerMap(
                        values[n], float(peaks[n]), bool(evidence[n])
                    )
    return found


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
