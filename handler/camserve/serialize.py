"""A photo's predictions and rendered explanations -> the JSON objects of its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import pybase64

from camserve.explain import Condition, Faithfulness, Verdict
from camserve.images import Box, EncodedImage, InputFrame, Map, MapStatistics, RenderedOutput
from camserve.options import FaithfulnessMetric, Method, Output
from camserve.protocols import (
    AnswerBody,
    BoxBody,
    ExplanationBody,
    ImageBody,
    MapBody,
    MapStatisticsBody,
    ModelBody,
    NotExplainedBody,
    PictureBody,
    PredictionBody,
)


@dataclass(frozen=True)
class ExplanationFields:
    """What an answer says of one explained score.

    Attributes:
        prediction: the class.
        against: the other class of "why A rather than B".
        method, layers: by which method, and at which layers, the map was computed.
        evidence: false where the map is zero everywhere.
        peak: the maximum of the map before normalisation.
        statistics: figures of the map; None where it is zero everywhere.
        explained: the sum of the map before normalisation over what its layer adds to the score;
            None where that is not exact.
        faithfulness: each figure that was asked for.
        rendered: each output that was asked for.
    """

    prediction: PredictionBody
    against: PredictionBody | None
    method: Method
    layers: tuple[str, ...]
    evidence: bool
    peak: float
    statistics: MapStatistics | None
    explained: float | None
    faithfulness: Mapping[FaithfulnessMetric, Faithfulness]
    rendered: Mapping[Output, RenderedOutput]


def photo_reply(
    model: ModelBody,
    frame: InputFrame,
    predictions: Sequence[PredictionBody],
    explanations: Sequence[ExplanationFields],
    *,
    warnings: Sequence[str] = (),
    profile: str = "",
    not_explained: NotExplainedBody | None = None,
) -> AnswerBody:
    """The answer to one photo.

    Args:
        model: that answered.
        frame: where the network's input lies in the photo.
        predictions: the best first.
        explanations: in the order asked for; empty where none was.
        warnings: what the decoder of the photo's file reported.
        profile: the name of the photo's colour profile; empty for none.
        not_explained: why there is no explanation, where the request's condition did not hold.
    """
    image: ImageBody = {
        "width": frame.width,
        "height": frame.height,
        "orientation": frame.orientation,
        "seen": _rounded_box(frame.visible_box),
    }
    if warnings:
        image["warnings"] = list(warnings)
    if profile:
        image["profile"] = profile
    answer: AnswerBody = {
        "model": model,
        "image": image,
        "predictions": list(predictions),
        "explanations": [_explanation(explanation) for explanation in explanations],
    }
    if not_explained:
        answer["not_explained"] = not_explained
    return answer


def not_explained_body(
    condition: Condition | None, verdict: Verdict | None
) -> NotExplainedBody | None:
    """Why a photo is not explained: its condition, and what it judged; None where it is."""
    if condition is None or verdict is None:
        return None
    values = condition.values(verdict)
    return {"condition": condition.text, "value": values[0] if len(values) == 1 else values}


def _explanation(explanation: ExplanationFields) -> ExplanationBody:
    layers = explanation.layers
    body: dict[str, Any] = {
        **explanation.prediction,
        "method": explanation.method,
        "layer": layers[0] if len(layers) == 1 else list(layers),
        "evidence": explanation.evidence,
        "peak": explanation.peak,
        "map_statistics": _statistics(explanation.statistics, explanation.explained),
    }
    if explanation.against:
        body["against"] = explanation.against
    if explanation.faithfulness:
        body["faithfulness"] = {
            name: asdict(figure) for name, figure in explanation.faithfulness.items()
        }
    for name, output in explanation.rendered.items():
        body[name] = _serialize_output(output)
    return cast(ExplanationBody, body)


def _statistics(figures: MapStatistics | None, explained: float | None) -> MapStatisticsBody:
    return {
        "entropy": figures.entropy if figures else None,
        "gini": figures.gini if figures else None,
        "centre": [round(edge, 3) + 0.0 for edge in figures.centre] if figures else None,
        "spread": figures.spread if figures else None,
        "border": figures.border if figures else None,
        "corners": figures.corners if figures else None,
        "explained": explained,
    }


def _serialize_output(output: RenderedOutput) -> PictureBody | MapBody | list[BoxBody]:
    if isinstance(output, EncodedImage):
        return PictureBody(
            b64=pybase64.b64encode_as_string(output.data),
            media_type=output.media_type,
            width=output.width,
            height=output.height,
        )
    if isinstance(output, tuple):
        return [BoxBody(box=_rounded_box(region.box), share=region.share) for region in output]
    return map_body(output)


def map_body(map: Map) -> MapBody:
    """A map (h, w) as JSON."""
    return {"shape": list(map.shape), "values": map.ravel().tolist()}


def _rounded_box(box: Box) -> list[float]:
    # Adding zero turns -0.0 into 0.0.
    return [round(edge, 3) + 0.0 for edge in box]
