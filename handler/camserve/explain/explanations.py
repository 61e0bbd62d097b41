"""One forward pass -> the explanations that its photos' requests ask for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camserve.explain import backward, maps
from camserve.explain.conditions import Condition, Verdict
from camserve.explain.decision import DecisionRule
from camserve.explain.hooks import ForwardOutput
from camserve.explain.host_copy import copy_to_host
from camserve.explain.maps import Maps
from camserve.explain.methods import METHODS
from camserve.explain.rounding import RoundingErrors
from camserve.explain.target_scores import TargetScores, score_weights, select_scores
from camserve.explain.targets import Target, TargetKind
from camserve.options import Method


@dataclass(frozen=True)
class ExplanationRequest:
    """What to explain of one photo.

    Attributes:
        targets: the scores; empty where no explanation is asked for.
        layers: the names of the layers whose maps are made.
        method: how the maps are made.
        condition: on the prediction, without which no explanation is made.
    """

    targets: tuple[Target, ...]
    layers: tuple[str, ...]
    method: Method
    condition: Condition | None = None

    def target_kinds(self, explanations: int) -> list[TargetKind]:
        """How the request names the score of each of so many explanations, in their order.

        There are none where the request's condition did not hold.
        """
        if not explanations:
            return []
        of_several = sum(target.every_predicted for target in self.targets)
        # Each such target stands for as many scores.
        predicted = (explanations - len(self.targets) + of_several) // max(of_several, 1)
        return [
            target.kind
            for target in self.targets
            for _ in range(predicted if target.every_predicted else 1)
        ]


@dataclass(frozen=True)
class LayerMap:
    """One layer's map, on the host.

    Attributes:
        values: (h, w) in [0, 1]; zeros where the map is constant.
        peak: the maximum of the raw map.
        evidence: false where the raw map is constant.
        explained: the sum of the raw map over y - b, the part of the score that the layer makes;
            None where that is not positive, or the score is no such sum.
    """

    values: NDArray[np.float32]
    peak: float
    evidence: bool
    explained: float | None = None


@dataclass(frozen=True)
class ScoreExplanation:
    """The explanation of one score.

    Attributes:
        class_id: index of the target's class.
        against: index of the class that a contrast is against.
        maps: one for each layer of the request.
    """

    class_id: int
    against: int | None
    maps: tuple[LayerMap, ...]


@dataclass(frozen=True)
class BatchExplanations:
    """Scores and explanations of N photos, on the host.

    Attributes:
        logits, probabilities: (N, C).
        order: (N, C) class indices of each photo, the highest score first.
        explained: for each photo the explanations of its targets, in their order.
        target_counts: how many scores each photo's targets stand for; where they are more than may
            be explained, none is.
        finite: for each photo, whether all its scores and maps are finite.
        not_explained: for each photo, what its request's condition judged where it did not hold.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    order: NDArray[np.int64]
    explained: list[list[ScoreExplanation]]
    target_counts: list[int]
    finite: list[bool]
    not_explained: list[Verdict | None]


@dataclass(frozen=True)
class _MapGroup:
    """The maps of one backward pass, layer and method.

    Attributes:
        indices: of their scores.
        layer: the layer's name.
        maps: of the scores.
        explained: (M,) the sum of each raw map over y - b; NaN where it is not exact.
    """

    indices: list[int]
    layer: str
    maps: Maps
    explained: Tensor


@dataclass(frozen=True)
class _BatchTensors:
    """All that is computed on the device for a batch."""

    logits: Tensor
    probabilities: Tensor
    order: Tensor
    scores: TargetScores
    map_groups: list[_MapGroup]


def required_layers(requests: Iterable[ExplanationRequest]) -> tuple[str, ...]:
    """The layers that a forward pass has to capture for these requests."""
    layers = (layer for request in requests if request.targets for layer in request.layers)
    return tuple(dict.fromkeys(layers))


def explain_batch(
    output: ForwardOutput,
    requests: Sequence[ExplanationRequest],
    rule: DecisionRule = DecisionRule(),  # noqa: B008  # frozen
) -> BatchExplanations:
    """Explain every score that the requests of a forward pass ask for.

    All is computed on the device, then copied to the host at once.

    Args:
        output: a forward pass over N photos that captured the :func:`required_layers`; the backward
            passes free its autograd graph.
        requests: N of them.
        rule: how scores become probabilities, and which classes are predicted.
    """
    logits = output.logits.detach().float()
    # A stable sort: of equal scores the lower class index comes first, as in argmax.
    order = logits.argsort(dim=1, descending=True, stable=True)
    probabilities = rule.probabilities(logits)
    conditions = [request.condition for request in requests]
    not_explained = rule.judge(probabilities, order, conditions)
    targets = [
        () if verdict else request.targets
        for request, verdict in zip(requests, not_explained, strict=True)
    ]
    scores = select_scores(order, targets, probabilities, rule)
    map_groups = list(_compute_maps(output, scores, requests))
    tensors = _BatchTensors(logits, probabilities, order, scores, map_groups)
    return _collect(copy_to_host(tensors, logits.device), requests, not_explained)


def _compute_maps(
    output: ForwardOutput, scores: TargetScores, requests: Sequence[ExplanationRequest]
) -> Iterator[_MapGroup]:
    """The map of each score at each layer of its request."""
    if not scores.samples:
        return
    samples, weights = scores.samples, score_weights(output.logits, scores)
    selected = backward.select_rows(output.logits.detach(), samples)
    layers = [requests[sample].layers for sample in samples]
    for indices, gradients in backward.score_gradients(output, samples, weights, layers):
        for layer, layer_gradient in gradients.items():
            layout = output.layouts[layer]
            gradient = layout.to_grid(layer_gradient)
            activations = layout.to_grid(output.activations[layer].detach())
            for method, rows in _rows_by_method(indices, samples, layer, requests).items():
                group = [indices[row] for row in rows]
                group_activations = backward.select_rows(activations, [samples[i] for i in group])
                group_gradients = backward.select_rows(gradient, rows)
                raw, normalised = _compute(
                    method,
                    group_activations.float(),
                    group_gradients.float(),
                    output.rounding[layer],
                )
                explained = raw.new_full((len(group),), torch.nan)
                bias = output.biases.get(layer)
                if method == "gradcam" and bias is not None:
                    made = backward.select_rows(selected - bias, group)
                    explained = _explained(
                        raw, (backward.select_rows(weights, group) * made).sum(1)
                    )
                yield _MapGroup(group, layer, normalised, explained)


def _compute(
    method: Method, activations: Tensor, gradients: Tensor, rounding: RoundingErrors
) -> tuple[Tensor, Maps]:
    """The maps of activations and gradients (M, K, h, w), raw and normalised."""
    raw = METHODS[method](activations, gradients)
    perturbed = METHODS[method](rounding.apply(activations), gradients)
    return raw, maps.normalise_maps(raw, perturbed)


def _explained(raw: Tensor, made: Tensor) -> Tensor:
    """(M,): the sum of each raw map over what the layer adds to its score; NaN where it adds none.

    Without the ReLU the sum would be just that. With it the sum is larger by what speaks against
    the class, and may exceed 1.
    """
    return torch.where(made > 0, raw.sum(dim=(1, 2)) / made, torch.nan)


def _rows_by_method(
    indices: Sequence[int],
    samples: Sequence[int],
    layer: str,
    requests: Sequence[ExplanationRequest],
) -> dict[Method, list[int]]:
    """By method, the rows of ``indices`` whose scores' requests ask for it at this layer."""
    rows: dict[Method, list[int]] = {}
    for row, index in enumerate(indices):
        request = requests[samples[index]]
        if layer in request.layers:
            rows.setdefault(request.method, []).append(row)
    return rows


def _collect(
    host: _BatchTensors,
    requests: Sequence[ExplanationRequest],
    not_explained: list[Verdict | None],
) -> BatchExplanations:
    """The batch's tensors, which are on the host now, as explanations of each photo's targets."""
    logits, order, scores = host.logits.numpy(), host.order.numpy(), host.scores
    maps_by_score = {
        (index, group.layer): LayerMap(
            values,
            float(peak),
            bool(evidence),
            None if math.isnan(explained) else float(explained),
        )
        for group in host.map_groups
        for index, values, peak, evidence, explained in zip(
            group.indices,
            *(tensor.numpy() for tensor in (*group.maps.as_tuple(), group.explained)),
            strict=True,
        )
    }
    against_ids = dict(zip(scores.contrast_indices, scores.against_ids.tolist(), strict=True))
    explained: list[list[ScoreExplanation]] = [[] for _ in requests]
    for index, (sample, class_id) in enumerate(
        zip(scores.samples, scores.class_ids.tolist(), strict=True)
    ):
        layer_maps = tuple(maps_by_score[index, layer] for layer in requests[sample].layers)
        explained[sample].append(ScoreExplanation(class_id, against_ids.get(index), layer_maps))
    finite = [_is_finite(*photo) for photo in zip(logits, order, explained, strict=True)]
    return BatchExplanations(
        logits,
        host.probabilities.numpy(),
        order,
        explained,
        scores.counts,
        finite,
        not_explained,
    )


def _is_finite(
    logits: NDArray[np.float32],
    order: NDArray[np.int64],
    explanations: Sequence[ScoreExplanation],
) -> bool:
    """Whether a photo's logits (C,), whose classes are sorted in ``order``, and maps are finite."""
    # Values that are not finite are sorted to one of the ends.
    extremes = [float(logits[order[0]]), float(logits[order[-1]])]
    peaks = [map.peak for explanation in explanations for map in explanation.maps]
    return all(math.isfinite(value) for value in extremes + peaks)
