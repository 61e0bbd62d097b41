"""Calls a camserve model server: predictions, each with its Grad-CAM explanation.

Four clients with one surface: :class:`Client` and :class:`AsyncClient` over HTTP,
:class:`GrpcClient` and :class:`AsyncGrpcClient` over gRPC.

    with Client("http://127.0.0.1:8080", "resnet50", token=token) as client:
        reply = client.explain("cat.jpg", target="tabby", outputs=["overlay"])
    print(reply.predictions[0].label)
    reply.explanations[0].overlay.save("cat-tabby.jpg")

A call takes a photo as bytes, a path, a numpy array or a PIL image, and the server's options by
their names (:class:`Options`). It ends in a :class:`Reply` or raises a :class:`CamserveError`.
"""

from camserve_client.errors import (
    CamserveError,
    RefusedError,
    ReplyError,
    TimedOutError,
    TokenRefusedError,
    UnavailableError,
)
from camserve_client.options import Choices, Options
from camserve_client.over_grpc import AsyncGrpcClient, GrpcClient
from camserve_client.over_http import AsyncClient, Client
from camserve_client.photos import Photo
from camserve_client.pictures import Map, Picture
from camserve_client.replies import Box, Explanation, ImageInfo, Model, Prediction, Reply
from camserve_client.tokens import Token

__all__ = [
    "AsyncClient",
    "AsyncGrpcClient",
    "Box",
    "CamserveError",
    "Choices",
    "Client",
    "Explanation",
    "GrpcClient",
    "ImageInfo",
    "Map",
    "Model",
    "Options",
    "Photo",
    "Picture",
    "Prediction",
    "RefusedError",
    "Reply",
    "ReplyError",
    "TimedOutError",
    "Token",
    "TokenRefusedError",
    "UnavailableError",
]
