"""What the Open Inference front costs a request, at one connection.

The same photo goes to a server in several ways, one request after the other, in changing order:
as it is, and by KServe v2 over HTTP and gRPC, straight to the server and through the front.
"""

from __future__ import annotations

import http.client
import json
import random
import struct
import time
from collections.abc import Callable, Mapping
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
HTTP: Final = "KServe v2, HTTP"
GRPC: Final = "KServe v2, gRPC"
FRONT_HTTP: Final = "KServe v2, HTTP, through the front"
FRONT_GRPC: Final = "KServe v2, gRPC, through the front"
#: The ways through the front, and the same call without it. TorchServe's gRPC takes typed contents
#: alone, and turns them into JSON.
WITHOUT_FRONT: Final = {FRONT_HTTP: HTTP, FRONT_GRPC: GRPC}
_TORCHSERVE: Final = "org.pytorch.serve.grpc.openinference."
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
        more_than: by the name of each way, the median of the differences to its requests of the
            same round, in ms.
    """

    way: str
    ms: float
    more_than: Mapping[str, float]


def measure_front_cost(
    server: ServerUnderTest,
    server_grpc: str,
    front: tuple[str, str],
    photo: Path,
    rounds: int,
) -> list[FrontCost]:
    """The time of a request in each way.

    Args:
        server_grpc: host:port of the server's own gRPC service.
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
    element = struct.pack("<I", len(image)) + image
    raw = _infer_request(server.model, raw_input_contents=[element])
    typed = _infer_request(server.model)
    typed.inputs[0].contents.bytes_contents.append(image)
    with grpc.insecure_channel(address) as channel, grpc.insecure_channel(server_grpc) as straight:
        ways: dict[str, Send] = {
            PLAIN: _poster(server.base, path, image, server.headers),
            HTTP: _poster(server.base, path, body, headers),
            FRONT_HTTP: _poster(base, f"/v2/models/{server.model}/infer", body, headers),
            GRPC: _caller(straight, _TORCHSERVE, typed, server.headers),
            FRONT_GRPC: _caller(channel, "inference.", raw, server.headers),
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
            {other: _median_difference(values, counted[other]) for other in counted},
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


def _infer_request(model: str, **contents: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, **contents)
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    return request


def _caller(
    channel: Any, package: str, request: pb.ModelInferRequest, headers: Mapping[str, str]
) -> Send:
    """Calls ModelInfer of a package, whose messages are the same on the wire."""
    metadata = [("protocol", "gRPC"), ("authorization", headers["Authorization"])]
    call = channel.unary_unary(
        f"/{package}GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )

    def infer() -> None:
        try:
            call(request, metadata=metadata, timeout=120)
        except grpc.RpcError as failure:
            raise LoadError(f"ModelInfer answered {failure.code().name}") from None

    return infer
