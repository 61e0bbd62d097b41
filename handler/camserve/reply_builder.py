"""What the network computed for one photo -> the answer to it, its pictures rendered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from camserve.errors import RequestError
from camserve.explain import BatchExplanations, Faithfulness, ScoreExplanation
from camserve.images import Heatmap, MapStatistics, RenderedOutput, render_outputs
from camserve.networks import Labels
from camserve.options import FaithfulnessMetric, Output
from camserve.photo_preparation import PreparedPhoto
from camserve.preprocess_settings import InputSize
from camserve.protocols import AnswerBody, ModelBody, PredictionBody
from camserve.record import RecordBuilder
from camserve.runtime import Task
from camserve.serialize import ExplanationFields, map_body, not_explained_body, photo_reply


@dataclass(frozen=True)
class PhotoResult:
    """What the network computed for one photo.

    Attributes:
        photo: the photo.
        n: its index in the forward pass.
        explanations: of the forward pass.
        heatmaps: one for each of the photo's explanations.
    """

    photo: PreparedPhoto
    n: int
    explanations: BatchExplanations
    heatmaps: Sequence[Heatmap]

    @staticmethod
    def has_evidence(explanation: ScoreExplanation, heatmap: Heatmap) -> bool:
        """Whether an explanation's heatmap shows anything."""
        return any(map.evidence for map in explanation.maps) and not heatmap.is_constant


@dataclass(frozen=True)
class ReplyBuilder:
    """Builds one model's answers.

    Attributes:
        model: the name and version that answers carry.
        labels: of its classes.
        max_targets: how many scores of one photo may be explained.
        input_size: of the network's input.
        records: builds the records of explanations.
    """

    model: ModelBody
    labels: Labels
    max_targets: int
    input_size: InputSize
    records: RecordBuilder

    def collect(self, photo: PreparedPhoto, n: int, explanations: BatchExplanations) -> PhotoResult:
        """The result of photo ``n`` of a forward pass.

        Raises:
            RequestError: ``non_finite_scores``; or more classes are predicted than may be
                explained, or than fit into the request's pictures: ``too_many_targets``,
                ``reply_too_large``, ``too_many_forwards``.
        """
        if not explanations.finite[n]:
            raise RequestError(
                "non_finite_scores", "the network's scores for this photo are not finite"
            )
        targets = explanations.target_counts[n]
        if targets > self.max_targets:
            raise RequestError(
                "too_many_targets",
                f"of this photo {targets} scores would be explained, as so many classes are "
                f"predicted; accepted: up to {self.max_targets}, as target=top:{self.max_targets}",
            )
        photo.reserve_explanations(targets)
        heatmaps = [
            Heatmap([map.values for map in explanation.maps], self.input_size)
            for explanation in explanations.explained[n]
        ]
        return PhotoResult(photo, n, explanations, heatmaps)

    def render(self, result: PhotoResult) -> Iterator[Task[RenderedOutput]]:
        """Tasks that render a photo's outputs: each explanation's, in the order of the options."""
        photo = result.photo
        for heatmap in result.heatmaps:
            yield from render_outputs(
                heatmap, photo.background, photo.frame, self.input_size, photo.options
            )

    def build(
        self,
        result: PhotoResult,
        rendered: Sequence[RenderedOutput],
        faithfulness: Sequence[Mapping[FaithfulnessMetric, Faithfulness]] | None = None,
    ) -> AnswerBody:
        """The answer to a photo.

        Args:
            result: what the network computed for it.
            rendered: what the tasks of :meth:`render` returned.
            faithfulness: the figures of each explanation, where the photo asks for some.
        """
        photo, outputs = result.photo, result.photo.options.outputs
        explained = result.explanations.explained[result.n]
        # Every explanation has as many rendered outputs as the options name.
        remaining = iter(rendered)
        answer = photo_reply(
            self.model,
            photo.frame,
            [
                self._prediction(int(class_id), result)
                for class_id in result.explanations.order[result.n, : photo.options.top_k]
            ],
            [
                self._explanation(
                    explanation,
                    heatmap,
                    result,
                    dict(zip(outputs, islice(remaining, len(outputs)), strict=True)),
                    figures,
                )
                for explanation, heatmap, figures in zip(
                    explained, result.heatmaps, faithfulness or [{}] * len(explained), strict=True
                )
            ],
            warnings=photo.warnings,
            profile=photo.profile,
            not_explained=not_explained_body(
                photo.explanation_request.condition, result.explanations.not_explained[result.n]
            ),
        )
        if photo.options.record:
            kinds = photo.explanation_request.target_kinds(len(explained))
            for body, heatmap, kind in zip(
                answer["explanations"], result.heatmaps, kinds, strict=True
            ):
                body["record"] = self.records.build(
                    photo, answer["image"], body, map_body(heatmap.map), kind
                )
        return answer

    def _prediction(self, class_id: int, result: PhotoResult) -> PredictionBody:
        n, explanations = result.n, result.explanations
        return {
            "class_id": class_id,
            "label": self.labels[class_id],
            "probability": float(explanations.probabilities[n, class_id]),
            "score": float(explanations.logits[n, class_id]),
        }

    def _explanation(
        self,
        explanation: ScoreExplanation,
        heatmap: Heatmap,
        result: PhotoResult,
        rendered: Mapping[Output, RenderedOutput],
        faithfulness: Mapping[FaithfulnessMetric, Faithfulness],
    ) -> ExplanationFields:
        request, maps, against = (
            result.photo.explanation_request,
            explanation.maps,
            explanation.against,
        )
        return ExplanationFields(
            prediction=self._prediction(explanation.class_id, result),
            against=None if against is None else self._prediction(against, result),
            method=request.method,
            layers=request.layers,
            evidence=result.has_evidence(explanation, heatmap),
            peak=maps[0].peak if len(maps) == 1 else heatmap.peak,
            statistics=MapStatistics.of(heatmap, result.photo.frame),
            explained=maps[0].explained if len(maps) == 1 else None,
            faithfulness=faithfulness,
            rendered=rendered,
        )
