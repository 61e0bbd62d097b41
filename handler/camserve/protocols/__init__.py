"""What a caller says and is told.

A request by any transport becomes photos with options (:func:`parse_request`), and the outcomes of
its photos become a reply in the protocol it came by: plain, KServe v1, or KServe v2, which Open
Inference over gRPC arrives as. The JSON of every reply is typed here. This wing knows neither
pixels nor PyTorch.
"""

from camserve.protocols.parsing import (
    ImageRequest,
    IncomingRequest,
    ParsedBody,
    detect_protocol,
    parse_request,
)
from camserve.protocols.replies import PhotoOutcome, Reply, ReplyFormat, json_reply
from camserve.protocols.schema import (
    AnswerBody,
    BoxBody,
    ExplanationBody,
    MapBody,
    ModelBody,
    PictureBody,
    PredictionBody,
)

__all__ = [
    "AnswerBody",
    "BoxBody",
    "ExplanationBody",
    "ImageRequest",
    "IncomingRequest",
    "MapBody",
    "ModelBody",
    "ParsedBody",
    "PhotoOutcome",
    "PictureBody",
    "PredictionBody",
    "Reply",
    "ReplyFormat",
    "detect_protocol",
    "json_reply",
    "parse_request",
]
