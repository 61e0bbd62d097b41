"""What the Open Inference front costs a request, at one connection.

The same photo goes to a server in four ways, one request after the other, in an order that changes:
as it is, by KServe v2 with binary tensors, and by the same through the front, over HTTP and gRPC.
"""

from __future__ import annotations

import http.client
import json
import random
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import grpc

from camserve_cli.open_inference import open_inference_pb2 as pb
from devtools.errors import LoadError
from devtools.measurements import percentile
from devtools.servers import ServerUnderTest

PLAIN: Final = "/predictions"
STRAIGHT: Final = "KServe v2, straight to the server"
FRONT_HTTP: Final = "KServe v2 through the front, HTTP"
FRONT_GRPC: Final = "KServe v2 through the front, gRPC"
#: The most that the front may cost a request, in ms.
GOAL_MS: Final = 1.5
#: The first requests are not counted.
_WARMUP: Final = 20
Send = Callable[[], object]


@dataclass(frozen=True)
class FrontCost:
    """The time of a request in one of the ways.

    Attributes:
        way: its name.
        ms: the median.
        more_than_straight, more_than_plain: the medians of the differences to the requests of the
            same round by KServe v2 and by /predictions, in ms.
    """

    way: str
    ms: float
    more_than_straight: float
    more_than_plain: float


def measure_front_cost(
    server: ServerUnderTest, front: tuple[str, str], photo: Path, rounds: int
) -> list[FrontCost]:
    """The time of a request in each way.

    Args:
        front: the base URL of the front, and host:port of its gRPC service.
        rounds: how many requests are sent in each way.

    Raises:
        LoadError: a request failed.
    """
    image = photo.read_bytes()
    body, headers = _binary_body(image)
    headers |= server.headers
    base, address = front
    path = f"/predictions/{server.model}"
    with grpc.insecure_channel(address) as channel:
        ways: dict[str, Send] = {
            PLAIN: _poster(server.base, path, image, server.headers),
            STRAIGHT: _poster(server.base, path, body, headers),
            FRONT_HTTP: _poster(base, f"/v2/models/{server.model}/infer", body, headers),
            FRONT_GRPC: _caller(channel, server, image),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        order, shuffle = list(ways), random.Random(1)  # noqa: S311
        for _ in range(_WARMUP + rounds):
            shuffle.shuffle(order)
            for way in order:
                start = time.perf_counter()
                ways[way]()
                times[way].append((time.perf_counter() - start) * 1000)
    counted = {way: values[_WARMUP:] for way, values in times.items()}
    return [
        FrontCost(
            way,
            percentile(values, 0.5),
            _median_difference(values, counted[STRAIGHT]),
            _median_difference(values, counted[PLAIN]),
        )
        for way, values in counted.items()
    ]


def _median_difference(values: list[float], others: list[float]) -> float:
    return percentile([a - b for a, b in zip(values, others, strict=True)], 0.5)


def _binary_body(photo: bytes) -> tuple[bytes, dict[str, str]]:
    """A body of KServe v2 with the photo behind the JSON, and its headers."""
    element = struct.pack("<I", len(photo)) + photo
    image = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": len(element)},
    }
    head = json.dumps({"inputs": [image], "parameters": {"binary_data_output": True}}).encode()
    return head + element, {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }


def _poster(base: str, path: str, body: bytes, headers: dict[str, str]) -> Send:
    """Posts a body over a connection that it keeps."""
    address = urlsplit(base)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)

    def post() -> None:
        connection.request("POST", path, body, headers)
        reply = connection.getresponse()
        content = reply.read()
        if reply.status != 200:
            raise LoadError(f"{path} answered HTTP {reply.status}: {content[:300]!r}")

    return post


def _caller(channel: Any, server: ServerUnderTest, photo: bytes) -> Send:
    """Sends a photo with raw contents."""
    element = struct.pack("<I", len(photo)) + photo
    request = pb.ModelInferRequest(model_name=server.model, raw_input_contents=[element])
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    metadata = [("authorization", server.headers["Authorization"])]
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )

    def infer() -> None:
        try:
            call(request, metadata=metadata, timeout=120)
        except grpc.RpcError as failure:
            raise LoadError(f"ModelInfer answered {failure.code().name}") from None

    return infer
