"""The stage of a batch that measures how faithful maps are, for the photos that ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor

from camserve.batch import network_inputs
from camserve.errors import RequestError
from camserve.explain import (
    DecisionRule,
    ExplainedScore,
    Faithfulness,
    HookedNetwork,
    MeasuredPhoto,
    measure_faithfulness,
)
from camserve.images import InputFrame
from camserve.model import LoadedModel
from camserve.options import FaithfulnessMetric
from camserve.reply_builder import PhotoResult
from camserve.runtime import bisect_on_failure

#: How many hexadecimal digits of a photo's SHA-256 seed its random map: what fits 64 bits.
_SEED_DIGITS: Final = 15

#: For each of a photo's explanations its figures by name.
PhotoFaithfulness = Sequence[Mapping[FaithfulnessMetric, Faithfulness]]
_Indexed = tuple[int, PhotoResult]


@dataclass(frozen=True)
class FaithfulnessStage:
    """Measures maps with a loaded model.

    Attributes:
        loaded: the model.
        rule: how its scores become probabilities.
    """

    loaded: LoadedModel
    rule: DecisionRule

    def measure(
        self, results: Mapping[int, PhotoResult]
    ) -> dict[int, PhotoFaithfulness | RequestError]:
        """The figures of the photos that ask for some, by the index of the photo.

        The masked forms of all photos share batches, on the forward path that scored the photos.
        """
        measured: dict[int, PhotoFaithfulness | RequestError] = {}
        for path in self.loaded.forward_paths:
            asking = [
                (index, result)
                for index, result in results.items()
                if result.photo.options.faithfulness
                and result.heatmaps
                and self.loaded.select_path(result.photo.explanation_request) is path
            ]
            if not asking:
                continue
            for photos, figures in bisect_on_failure(partial(self._measure, path), asking):
                for n, (index, _) in enumerate(photos):
                    measured[index] = figures if isinstance(figures, RequestError) else figures[n]
        return measured

    def _measure(
        self, path: HookedNetwork, photos: Sequence[_Indexed]
    ) -> list[PhotoFaithfulness | RequestError]:
        memory_format = self.loaded.network.memory_format

        def forward(inputs: Tensor) -> Tensor:
            return path.forward(inputs.contiguous(memory_format=memory_format), ()).logits

        inputs = network_inputs(self.loaded.network, [result.photo for _, result in photos])
        measured = [
            self._photo(row, result) for row, (_, result) in zip(inputs, photos, strict=True)
        ]
        return [*measure_faithfulness(measured, forward, self.loaded.batch_size, self.rule)]

    def _photo(self, inputs: Tensor, result: PhotoResult) -> MeasuredPhoto:
        """A photo with its maps over the network's input (C, H, W)."""
        explanations, n = result.explanations, result.n
        frame = InputFrame.full(inputs.shape[2], inputs.shape[1])
        scores = [
            ExplainedScore(
                explanation.class_id,
                explanation.against,
                torch.from_numpy(heatmap.resample(frame)).to(inputs.device)
                if result.has_evidence(explanation, heatmap)
                else None,
            )
            for explanation, heatmap in zip(explanations.explained[n], result.heatmaps, strict=True)
        ]
        height, width = result.heatmaps[0].map.shape
        return MeasuredPhoto(
            inputs,
            torch.from_numpy(explanations.logits[n : n + 1]),
            scores,
            (height, width),
            result.photo.options.faithfulness,
            seed=int(result.photo.sha256[:_SEED_DIGITS], 16),
        )
