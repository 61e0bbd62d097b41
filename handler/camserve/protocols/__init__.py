"""The wire protocols: what callers send, and what they receive.

:func:`parse_request` turns a request of any transport into photos with options. A
:class:`ReplyFormat` turns the outcomes of these photos into a reply in the request's protocol:
plain, KServe v1, or KServe v2, as which Open Inference over gRPC arrives. ``schema`` types the
JSON of every reply. This wing knows neither pixels nor PyTorch.
"""

from camserve.protocols.parsing import (
    ImageRequest,
    IncomingRequest,
    ParsedBody,
    detect_protocol,
    parse_request,
)
from camserve.protocols.photo_fields import EncodedPhoto
from camserve.protocols.photo_tensors import PhotoTensor
from camserve.protocols.replies import PhotoOutcome, Reply, ReplyFormat, json_reply
from camserve.protocols.schema import (
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
    RecordBody,
)

__all__ = [
    "AnswerBody",
    "BoxBody",
    "EncodedPhoto",
    "ExplanationBody",
    "ImageBody",
    "ImageRequest",
    "IncomingRequest",
    "MapBody",
    "MapStatisticsBody",
    "ModelBody",
    "NotExplainedBody",
    "ParsedBody",
    "PhotoOutcome",
    "PhotoTensor",
    "PictureBody",
    "PredictionBody",
    "RecordBody",
    "Reply",
    "ReplyFormat",
    "detect_protocol",
    "json_reply",
    "parse_request",
]
