"""Results -> the reply's objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pybase64

from camserve.images.geometry import Box, InputFrame
from camserve.images.render import EncodedImage, Map, RenderedOutput
from camserve.options import Method, Output
from camserve.protocols.schema import (
    AnswerBody,
    BoxBody,
    ExplanationBody,
    MapBody,
    ModelBody,
    PictureBody,
    PredictionBody,
)


@dataclass(frozen=True)
class ExplanationFields:
    """Where the network saw one class.

    Attributes:
        prediction: the class.
        against: the other class of "why A rather than B".
        method, layers: how and where the map was taken.
        evidence: false where the map is zero everywhere.
        peak: the maximum of the map, before normalisation.
        rendered: by output.
    """

    prediction: PredictionBody
    against: PredictionBody | None
    method: Method
    layers: tuple[str, ...]
    evidence: bool
    peak: float
    rendered: Mapping[Output, RenderedOutput]


def photo_reply(
    model: ModelBody,
    frame: InputFrame,
    predictions: Sequence[PredictionBody],
    explanations: Sequence[ExplanationFields],
) -> AnswerBody:
    """The answer to one photo; ``explanations`` is empty where none was asked for."""
    return {
        "model": model,
        "image": {
            "width": frame.width,
            "height": frame.height,
            "orientation": frame.orientation,
            "seen": _edges(frame.seen),
        },
        "predictions": list(predictions),
        "explanations": [_explanation(explanation) for explanation in explanations],
    }


def _explanation(explanation: ExplanationFields) -> ExplanationBody:
    layers = explanation.layers
    body: dict[str, Any] = {
        **explanation.prediction,
        "method": explanation.method,
        "layer": layers[0] if len(layers) == 1 else list(layers),
        "evidence": explanation.evidence,
        "peak": explanation.peak,
    }
    if explanation.against:
        body["against"] = explanation.against
    for output, drawing in explanation.rendered.items():
        body[output] = _drawn(drawing)
    return cast(ExplanationBody, body)


def _drawn(drawing: RenderedOutput) -> PictureBody | MapBody | list[BoxBody]:
    if isinstance(drawing, EncodedImage):
        return PictureBody(
            b64=pybase64.b64encode_as_string(drawing.data),
            media_type=drawing.media_type,
            width=drawing.width,
            height=drawing.height,
        )
    if isinstance(drawing, tuple):
        return [BoxBody(box=_edges(region.box), share=region.share) for region in drawing]
    return _grid(drawing)


def _grid(map: Map) -> MapBody:
    return {"shape": list(map.shape), "values": map.ravel().tolist()}


def _edges(box: Box) -> list[float]:
    # Adding zero takes the sign off a zero.
    return [round(edge, 3) + 0.0 for edge in box]
