"""Whether a map is true: what happens to the score when what it points at is hidden.

Every figure stands beside that of a random map and of a map that decreases from the centre. Alone
it would mislead: it depends on the photo and the network as much as on the map (Wu et al. 2024,
"On the Faithfulness of Vision Transformer Explanations", arXiv 2404.01415).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from camserve.errors import RequestError
from camserve.explain import masking
from camserve.explain.decision import DecisionRule
from camserve.explain.imputation import impute
from camserve.options import FaithfulnessMetric

#: Into how many steps of as many pixels the curves of insertion and deletion are divided. Their
#: area differs by 0.01 from that of 240 steps.
CURVE_STEPS: Final = 6
#: The figures that are areas under a curve. One end of it is the whole photo, and the other is
#: shared by all maps.
_CURVES: Final[tuple[str, ...]] = ("insertion", "deletion")
#: The shares of the pixels that stay for ROAD; the others are imputed.
ROAD_SHARES: Final = (0.2, 0.4, 0.6, 0.8)
_CURVE_SHARES: Final = tuple(step / CURVE_STEPS for step in range(1, CURVE_STEPS))
#: The maps that every photo is measured with beside its own: random, and centre.
_REFERENCE_MAPS: Final = 2


@dataclass(frozen=True)
class Faithfulness:
    """A figure of an explanation's map, beside that of two maps that explain nothing.

    Attributes:
        value: of the map; None where it has no evidence, or the figure is not defined.
        random, centre: of a random map and of one that decreases from the centre; None where the
            figure is not defined.
    """

    value: float | None
    random: float | None
    centre: float | None


@dataclass(frozen=True)
class ExplainedScore:
    """A score that is explained, and its map.

    Attributes:
        class_id: index of the class.
        against: index of the class that a contrast is against.
        map: (H, W) in [0, 1] over the network's input; None where it has no evidence.
    """

    class_id: int
    against: int | None
    map: Tensor | None


@dataclass(frozen=True)
class MeasuredPhoto:
    """A photo whose explanations are to be measured.

    Attributes:
        inputs: (C, H, W), the network's normalised input.
        logits: (1, C), of the whole photo.
        scores: that are explained.
        grid: height and width of the map before it was upsampled, as the random map has them.
        metrics: to compute.
        seed: of the random map, and of the noise of ROAD.
    """

    inputs: Tensor
    logits: Tensor
    scores: Sequence[ExplainedScore]
    grid: tuple[int, int]
    metrics: tuple[FaithfulnessMetric, ...]
    seed: int


def forward_count(metrics: Sequence[FaithfulnessMetric], targets: int) -> int:
    """How many masked photos the network sees for so many targets of a photo."""
    return _masked_count(metrics, targets + _REFERENCE_MAPS) if targets else 0


def random_map(grid: tuple[int, int], seed: int) -> Tensor:
    """(h, w) of uniformly random values."""
    return torch.rand(grid, generator=_generator(seed))


def centre_map(size: tuple[int, int]) -> Tensor:
    """(H, W) that decreases from 1 at the centre to 0 in the corners, by the distance."""
    # Whole numbers below the root: cells that mirror each other are equal to the last bit on every
    # machine, where a sum of rounded squares would break their tie by the processor's vectors.
    height, width = size
    y, x = (2 * torch.arange(pixels) + 1 - pixels for pixels in size)
    squared = (y * width).square().unsqueeze(1) + (x * height).square().unsqueeze(0)
    distance = squared.double().sqrt()
    low, high = distance.min(), distance.max()
    return ((high - distance) / (high - low).clamp_min(1)).float()


def measure_faithfulness(
    photos: Sequence[MeasuredPhoto],
    forward: Callable[[Tensor], Tensor],
    batch_size: int,
    rule: DecisionRule,
) -> list[list[dict[FaithfulnessMetric, Faithfulness]] | RequestError]:
    """The figures of every explanation of some photos.

    The masked photos of all of them run through the network together, in full batches.

    Args:
        photos: to measure.
        forward: (N, C, H, W) normalised input -> (N, C) logits, without a gradient.
        batch_size: the largest N.
        rule: how logits become probabilities.

    Returns:
        For each photo the figures of each of its scores by name; an error, ``non_finite_scores``,
        where the network's scores for a masked form are not finite.
    """
    masked = chain.from_iterable(map(_masked_forms, photos))
    logits: list[Tensor] = []
    while batch := list(islice(masked, batch_size)):
        logits.append(forward(torch.stack(batch)).detach().float().cpu())
    rows = iter(torch.cat(logits))
    return [_figures(photo, rows, rule) for photo in photos]


def _masked_forms(photo: MeasuredPhoto) -> Iterator[Tensor]:
    """The masked photos (C, H, W), first those that all maps share."""
    inputs, generator = photo.inputs, _generator(photo.seed)
    size = (inputs.shape[1], inputs.shape[2])
    masks = _masks(photo.metrics)
    blurred = masking.blur(inputs) if "insertion" in masks else inputs
    if "insertion" in masks:
        yield blurred
    if "deletion" in masks:
        yield torch.zeros_like(inputs)
    for map in _maps(photo):
        if "weighted" in masks:
            yield masking.weight_pixels(inputs, map)
        if not masks.keys() - {"weighted"}:
            continue
        order = masking.pixel_order(map)
        for share in masks.get("insertion", ()):
            shown = masking.top_pixels(order, share, size)
            yield masking.insert_pixels(blurred, inputs, shown)
        for share in masks.get("deletion", ()):
            yield masking.delete_pixels(inputs, masking.top_pixels(order, share, size))
        if "road" in masks:
            most = [masking.top_pixels(order, 1 - share, size) for share in ROAD_SHARES]
            least = [~masking.top_pixels(order, share, size) for share in ROAD_SHARES]
            yield from impute(inputs, torch.stack([*most, *least]), generator)


def _maps(photo: MeasuredPhoto) -> Iterator[Tensor]:
    """(H, W) of the random map, the centre map, and those of the scores that have evidence."""
    size, device = (photo.inputs.shape[1], photo.inputs.shape[2]), photo.inputs.device
    random = random_map(photo.grid, photo.seed).to(device)[None, None]
    yield F.interpolate(random, size, mode="bilinear")[0, 0]
    # Not on the map's grid, of which one of 2 x 2 has no centre.
    yield centre_map(size).to(device)
    for score in photo.scores:
        if score.map is not None:
            yield score.map


def _figures(
    photo: MeasuredPhoto, rows: Iterator[Tensor], rule: DecisionRule
) -> list[dict[FaithfulnessMetric, Faithfulness]] | RequestError:
    """The figures of one photo, from the logits (C,) of its masked forms, in their order."""
    masks = _masks(photo.metrics)
    maps = _REFERENCE_MAPS + sum(score.map is not None for score in photo.scores)
    of_photo = list(islice(rows, _masked_count(photo.metrics, maps)))
    if not all(row.isfinite().all() for row in of_photo):
        return RequestError(
            "non_finite_scores",
            "the network's scores for this photo, with a part of it hidden, are not finite",
        )
    remaining = iter(of_photo)

    def take(count: int) -> Tensor:
        return torch.stack(list(islice(remaining, count)))

    ends = {name: take(1) for name in _CURVES if name in masks}
    by_map = [{name: take(len(shares)) for name, shares in masks.items()} for _ in range(maps)]
    random, centre, own = by_map[0], by_map[1], iter(by_map[_REFERENCE_MAPS:])
    figures = []
    for score in photo.scores:
        curves = _Curves(photo.logits.float().cpu(), ends, score, rule)
        mine = next(own) if score.map is not None else None
        figures.append(
            {
                metric: Faithfulness(
                    curves.figure(metric, mine) if mine else None,
                    curves.figure(metric, random),
                    curves.figure(metric, centre),
                )
                for metric in photo.metrics
            }
        )
    return figures


@dataclass(frozen=True)
class _Curves:
    """The confidences of one score, in the whole photo and in masked ones.

    Attributes:
        whole: (1, C) logits of the photo.
        ends: by curve, the logits (1, C) of the masked photo that all maps share.
        score: that is explained.
        rule: how logits become probabilities.
    """

    whole: Tensor
    ends: Mapping[str, Tensor]
    score: ExplainedScore
    rule: DecisionRule

    def figure(self, metric: FaithfulnessMetric, masked: Mapping[str, Tensor]) -> float | None:
        """A figure of one map, from the logits (N, C) of its masked photos; None: not defined."""
        (full,) = self._confidences(self.whole)
        if metric == "drop":
            (left,) = self._confidences(masked["weighted"])
            return max(0.0, full - left) / full if full else None
        if metric == "increase":
            (left,) = self._confidences(masked["weighted"])
            return float(left > full)
        if metric == "road":
            values = self._confidences(masked["road"])
            most, least = values[: len(ROAD_SHARES)], values[len(ROAD_SHARES) :]
            return (sum(least) - sum(most)) / (2 * len(ROAD_SHARES))
        (end,) = self._confidences(self.ends[metric])
        inner = self._confidences(masked[metric])
        # The trapezoidal rule; either end of the curve is the whole photo.
        return (sum(inner) + (full + end) / 2) / CURVE_STEPS

    def _confidences(self, logits: Tensor) -> list[float]:
        return self.rule.confidence(logits, self.score.class_id, self.score.against).tolist()


def _masks(metrics: Sequence[FaithfulnessMetric]) -> dict[str, tuple[float, ...]]:
    """By name, the masked photos that every map needs; average drop and increase share one."""
    masks: dict[str, tuple[float, ...]] = {}
    if {"drop", "increase"} & set(metrics):
        masks["weighted"] = (1.0,)
    masks.update({name: _CURVE_SHARES for name in _CURVES if name in metrics})
    if "road" in metrics:
        masks["road"] = ROAD_SHARES * 2
    return masks


def _masked_count(metrics: Sequence[FaithfulnessMetric], maps: int) -> int:
    """How many masked photos so many maps of a photo need, with those that they share."""
    masks = _masks(metrics)
    shared = sum(name in masks for name in _CURVES)
    return shared + maps * sum(len(shares) for shares in masks.values())


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
