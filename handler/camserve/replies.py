"""Results -> body, content type and status."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from camserve.errors import RequestError
from camserve.pictures import Frame
from camserve.render import Image

JSON = "application/json"


@dataclass(frozen=True)
class Reply:
    """What goes back for one request."""

    body: bytes
    status: int = 200
    content_type: str = JSON


@dataclass(frozen=True)
class Prediction:
    """A class and how the network sees it.

    Attributes:
        class_id: its index.
        label: its name.
        probability: softmax over all classes, in [0, 1].
        score: the logit.
    """

    class_id: int
    label: str
    probability: float
    score: float


@dataclass(frozen=True)
class Explanation:
    """Where the network saw one class.

    Attributes:
        prediction: the class.
        method, layer: how and where the map was taken.
        evidence: false where the map is zero everywhere.
        peak: the raw maximum of the map, before normalisation.
        images: by output name.
    """

    prediction: Prediction
    method: str
    layer: str
    evidence: bool
    peak: float
    images: Mapping[str, Image]


@dataclass(frozen=True)
class Model:
    """The served model."""

    name: str
    version: str


def explained(
    model: Model,
    frame: Frame,
    predictions: Sequence[Prediction],
    explanations: Sequence[Explanation],
) -> Reply:
    """The reply to one photo; ``explanations`` is empty where none was asked for."""
    return Reply(
        orjson.dumps(
            {
                "model": asdict(model),
                "image": {
                    "width": frame.width,
                    "height": frame.height,
                    "seen": [round(edge, 3) for edge in frame.seen],
                },
                "predictions": [asdict(prediction) for prediction in predictions],
                "explanations": [_explanation(explanation) for explanation in explanations],
            }
        )
    )


def refused(error: RequestError) -> Reply:
    """The reply to a request that failed; the body says the status too, for gRPC loses it."""
    fields = {"code": error.code, "status": error.status, "message": error.message}
    return Reply(orjson.dumps({"error": fields}), error.status)


def _explanation(explanation: Explanation) -> dict[str, Any]:
    return {
        **asdict(explanation.prediction),
        "method": explanation.method,
        "layer": explanation.layer,
        "evidence": explanation.evidence,
        "peak": explanation.peak,
        **{name: _image(image) for name, image in explanation.images.items()},
    }


def _image(image: Image) -> dict[str, Any]:
    return {
        "b64": base64.b64encode(image.data).decode("ascii"),
        "media_type": image.media_type,
        "width": image.width,
        "height": image.height,
    }
