"""A client for a camserve model server: predictions, each with its Grad-CAM explanation.

Four clients with the same methods: :class:`Client` and :class:`AsyncClient` over HTTP,
:class:`GrpcClient` and :class:`AsyncGrpcClient` over gRPC.

    with Client("http://127.0.0.1:8080", "resnet50", token=token) as client:
        reply = client.explain("cat.jpg", target="tabby", outputs=["overlay"])
    print(reply.predictions[0].label)
    reply.explanations[0].overlay.save("cat-tabby.jpg")

A photo is bytes, a path, a numpy array or a PIL image. The options are those of the server, by name
(:class:`ExplainOptions`). A call returns a :class:`Reply` or raises a :class:`CamserveError`.
"""

import warnings
from typing import TYPE_CHECKING, Any

from camserve_client.errors import (
    AuthenticationError,
    CamserveError,
    CertificateError,
    InvalidReplyError,
    RequestRejectedError,
    RequestTimeoutError,
    ServerFailedError,
    StatusError,
    UnavailableError,
)
from camserve_client.options import ExplainOptions, PredictOptions
from camserve_client.photos import Photo
from camserve_client.pictures import Map, Picture
from camserve_client.replies import (
    Explanation,
    Faithfulness,
    ImageInfo,
    MapStatistics,
    Model,
    NotExplained,
    Prediction,
    Region,
    Reply,
)
from camserve_client.tokens import Token
from camserve_client.transports.grpc import AsyncGrpcClient, GrpcClient
from camserve_client.transports.http import AsyncClient, Client

__all__ = [
    "AsyncClient",
    "AsyncGrpcClient",
    "AuthenticationError",
    "CamserveError",
    "CertificateError",
    "Client",
    "ExplainOptions",
    "Explanation",
    "Faithfulness",
    "GrpcClient",
    "ImageInfo",
    "InvalidReplyError",
    "Map",
    "MapStatistics",
    "Model",
    "NotExplained",
    "Photo",
    "Picture",
    "PredictOptions",
    "Prediction",
    "Region",
    "Reply",
    "RequestRejectedError",
    "RequestTimeoutError",
    "ServerFailedError",
    "StatusError",
    "Token",
    "UnavailableError",
]

#: Deprecated names, and the names that replace them.
_RENAMED = {
    "Box": "Region",
    "Choices": "PredictOptions",
    "Options": "ExplainOptions",
    "RefusedError": "StatusError",
    "ReplyError": "InvalidReplyError",
    "TimedOutError": "RequestTimeoutError",
    "TokenRefusedError": "AuthenticationError",
}

if TYPE_CHECKING:
    # A type checker that knew ``__getattr__`` would accept any name, and know none of the types.
    Box = Region
    Choices = PredictOptions
    Options = ExplainOptions
    RefusedError = StatusError
    ReplyError = InvalidReplyError
    TimedOutError = RequestTimeoutError
    TokenRefusedError = AuthenticationError
else:

    def __getattr__(name: str) -> Any:
        if name not in _RENAMED:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        renamed = _RENAMED[name]
        warnings.warn(
            f"camserve_client.{name} is deprecated; use camserve_client.{renamed}",
            DeprecationWarning,
            stacklevel=2,
        )
        return globals()[renamed]
