"""A reply's objects as they stand in JSON.

``scripts/schemas.py`` generates docs/reply.schema.json from these types.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

# pydantic reads these; before Python 3.12 it cannot read typing's own.
from typing_extensions import TypedDict

from camserve.options import Method

#: Those of KServe's that answers need.
Datatype = Literal["BOOL", "INT64", "FP32", "BYTES"]


class ModelBody(TypedDict):
    """The model that answered."""

    name: str
    version: str


class ImageBody(TypedDict):
    """The photo: its size as its file stores it, its EXIF orientation (1 to 8), and ``seen``, the
    part that the network saw, as x0, y0, x1, y1 in the file's pixels, x1 and y1 exclusive.
    """

    width: int
    height: int
    orientation: int
    seen: list[float]


class PredictionBody(TypedDict):
    """A class: its index and label, its softmax probability over all classes, its logit."""

    class_id: int
    label: str
    probability: float
    score: float


class PictureBody(TypedDict):
    """An encoded picture, in base64."""

    b64: str
    media_type: str
    width: int
    height: int


class MapBody(TypedDict):
    """The map: its (h, w), and its values in [0, 1], row by row."""

    shape: list[int]
    values: list[float]


class BoxBody(TypedDict):
    """A hot region: x0, y0, x1, y1 in the photo's own pixels, and its share of all heat."""

    box: list[float]
    share: float


class ExplanationBody(PredictionBody):
    """Where the network saw a class.

    ``against`` is the other class of "why A rather than B"; ``layer`` a list where several were
    asked for; ``evidence`` false where the map is zero everywhere; ``peak`` the map's maximum
    before it was normalised; each output stands there if it was asked for.
    """

    against: NotRequired[PredictionBody]
    method: Method
    layer: str | list[str]
    evidence: bool
    peak: float
    heatmap: NotRequired[PictureBody]
    overlay: NotRequired[PictureBody]
    mask: NotRequired[PictureBody]
    map: NotRequired[MapBody]
    boxes: NotRequired[list[BoxBody]]


class AnswerBody(TypedDict):
    """The answer to one photo: predictions with the best first, explanations in the order asked."""

    model: ModelBody
    image: ImageBody
    predictions: list[PredictionBody]
    explanations: list[ExplanationBody]


class ErrorFields(TypedDict):
    """What was wrong, and the HTTP status, which gRPC loses on its way."""

    code: str
    status: int
    message: str


class ErrorBody(TypedDict):
    """The answer to one photo that could not be answered."""

    error: ErrorFields


class V1Predictions(TypedDict):
    """KServe v1, ``:predict``: answers in the order of the instances, errors in their places."""

    predictions: list[AnswerBody | ErrorBody]


class V1Explanations(TypedDict):
    """KServe v1, ``:explain``: answers in the order of the instances, errors in their places."""

    explanations: list[AnswerBody | ErrorBody]


class TensorBody(TypedDict):
    """A named tensor of KServe v2: its elements in ``data``, row by row."""

    name: str
    datatype: Datatype
    shape: list[int]
    data: list[Any]


class V2Body(TypedDict):
    """KServe v2 and Open Inference.

    ``error`` stands there where the request failed as a whole; otherwise the tensor ``error`` has
    the errors of single photos, as JSON, and empty texts for the others.
    """

    id: str
    model_name: str
    model_version: str
    outputs: list[TensorBody]
    error: NotRequired[ErrorFields]


#: Every body that can come back.
Body = AnswerBody | ErrorBody | V1Predictions | V1Explanations | V2Body
