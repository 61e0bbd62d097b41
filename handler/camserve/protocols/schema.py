"""The JSON of every reply, as types.

``scripts/schemas.py`` generates docs/reply.schema.json from them.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

# Before Python 3.12, pydantic cannot read typing.TypedDict.
from typing_extensions import TypedDict

from camserve.options import FaithfulnessMetric, Method
from camserve.settings import LayoutKind, OutputKind, Task

#: The KServe datatypes that answers need.
Datatype = Literal["BOOL", "INT64", "FP32", "BYTES"]


class ModelBody(TypedDict):
    """The model that answered."""

    name: str
    version: str


class ImageBody(TypedDict):
    """The photo: its size as stored in the file, its EXIF orientation (1 to 8), and ``seen``, the
    part that the network saw: x0, y0, x1, y1 in pixels of the file, x1 and y1 exclusive.

    ``warnings`` is present if the file is damaged, or its colour profile could not be applied:
    ``damaged``, ``no_end_marker``, ``profile_not_applied``. ``profile`` is the name of the colour
    profile, if the file has one that has a name.
    """

    width: int
    height: int
    orientation: int
    seen: list[float]
    warnings: NotRequired[list[str]]
    profile: NotRequired[str]


class PredictionBody(TypedDict):
    """A class: its index, its label, its softmax probability over all classes, its logit."""

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
    """The map: its shape (h, w), and its values in [0, 1], row by row."""

    shape: list[int]
    values: list[float]


class BoxBody(TypedDict):
    """A hot region: x0, y0, x1, y1 in pixels of the file, and its share of all heat."""

    box: list[float]
    share: float


class MapStatisticsBody(TypedDict):
    """Figures of a map; null where it is zero everywhere.

    ``entropy``, in nats, is 0 where one cell has all heat; ``gini`` is 0 where all have the same.
    ``centre`` (x, y) and ``spread``, the root mean squared distance from it, are in pixels of the
    file. ``border`` and ``corners`` are shares of heat in the outer seventh of what was seen.
    ``explained`` is the sum of the map before normalisation over y - b, the part of the score that
    the layer makes; null where that is not exact or not positive.
    """

    entropy: float | None
    gini: float | None
    centre: list[float] | None
    spread: float | None
    border: float | None
    corners: float | None
    explained: float | None


class FaithfulnessBody(TypedDict):
    """A figure of faithfulness: of the map, and of two maps that explain nothing, one of random
    values and one that decreases from the centre. Null where a figure is not defined.
    """

    value: float | None
    random: float | None
    centre: float | None


class NotExplainedBody(TypedDict):
    """The condition of ``explain_when`` that did not hold, and the value that it judged: a
    probability, a margin or a class index; a list of these where it has several comparisons.
    """

    condition: str
    value: float | list[float]


class RecordModelBody(ModelBody):
    """The model of a record: its architecture, the SHA-256 of its weights, and what its scores
    mean.
    """

    arch: str
    weights_sha256: str
    task: Task
    output: OutputKind


class RecordPhotoBody(TypedDict):
    """The photo of a record: the SHA-256 of its file, or of its tensor's bytes; its size and what
    the network saw of it, as in ``image``.
    """

    sha256: str
    width: int
    height: int
    seen: list[float]


class RecordLayerBody(TypedDict):
    """An explained layer: its name, its layout, and (K, h, w) of the grid that it gives."""

    name: str
    layout: LayoutKind
    shape: list[int]


class RecordPrecisionBody(TypedDict):
    """How the trunk is computed, and the largest difference of a map's value that the same network
    may make of the photo elsewhere.
    """

    trunk: str
    compiled: bool
    tolerance: float


class RecordBody(TypedDict):
    """What an explanation was made of, so that it can be made anew. It holds no pixel and no
    metadata of the photo.

    ``options`` and ``preprocess`` have every value that was in force, defaults among them;
    ``target_kind`` says how the request named the class.
    """

    record_version: int
    model: RecordModelBody
    photo: RecordPhotoBody
    prediction: PredictionBody
    against: NotRequired[PredictionBody]
    target_kind: Literal["predicted", "ranked", "class", "contrast"]
    method: Method
    layers: list[RecordLayerBody]
    evidence: bool
    peak: float
    map: MapBody
    map_statistics: MapStatisticsBody
    options: dict[str, Any]
    preprocess: dict[str, Any]
    precision: RecordPrecisionBody
    versions: dict[str, str]


class ExplanationBody(PredictionBody):
    """Where the network saw a class.

    ``against`` is the class B of the target "A-B". ``layer`` is a list if several layers were
    requested. ``evidence`` is false if the map is zero everywhere. ``peak`` is the map's maximum
    before normalisation. ``map_statistics`` is always present, but in replies of servers before it.
    ``faithfulness``, ``record`` and each output are present if they were requested.
    """

    against: NotRequired[PredictionBody]
    method: Method
    layer: str | list[str]
    evidence: bool
    peak: float
    map_statistics: NotRequired[MapStatisticsBody]
    faithfulness: NotRequired[dict[FaithfulnessMetric, FaithfulnessBody]]
    record: NotRequired[RecordBody]
    heatmap: NotRequired[PictureBody]
    overlay: NotRequired[PictureBody]
    mask: NotRequired[PictureBody]
    map: NotRequired[MapBody]
    boxes: NotRequired[list[BoxBody]]


class AnswerBody(TypedDict):
    """The answer to one photo: predictions, best first, and explanations in the order requested.

    ``not_explained`` is present if the condition of ``explain_when`` did not hold; there is no
    explanation then.
    """

    model: ModelBody
    image: ImageBody
    predictions: list[PredictionBody]
    explanations: list[ExplanationBody]
    not_explained: NotRequired[NotExplainedBody]


class ErrorFields(TypedDict):
    """What was wrong, and the HTTP status, which gRPC loses."""

    code: str
    status: int
    message: str


class ErrorBody(TypedDict):
    """The error of one photo, or of a whole request."""

    error: ErrorFields


class V1Predictions(TypedDict):
    """KServe v1, ``:predict``: answers in the order of the instances, errors among them."""

    predictions: list[AnswerBody | ErrorBody]


class V1Explanations(TypedDict):
    """KServe v1, ``:explain``: answers in the order of the instances, errors among them."""

    explanations: list[AnswerBody | ErrorBody]


class TensorBody(TypedDict):
    """A named tensor of KServe v2: its elements in ``data``, row by row."""

    name: str
    datatype: Datatype
    shape: list[int]
    data: list[Any]


class V2Body(TypedDict):
    """KServe v2 and Open Inference.

    ``error`` is present if no photo is answered: the message of the most severe error, which
    ``error_detail`` has with its code and status. The tensor ``error`` has the error of each failed
    photo as JSON, and empty text for the others. Tensors that the request wants in binary have the
    parameter ``binary_data_size`` in place of ``data``, and stand behind the JSON.
    """

    id: str
    model_name: str
    model_version: str
    outputs: list[TensorBody]
    error: NotRequired[str]
    error_detail: NotRequired[ErrorFields]


#: The JSON body of any reply.
Body = AnswerBody | ErrorBody | V1Predictions | V1Explanations | V2Body
