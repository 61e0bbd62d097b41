"""How the tests call a server: plain HTTP and gRPC, and what a reply's pictures show."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import grpc
import httpx
import inference_pb2
import inference_pb2_grpc
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Client:
    """A server's addresses and a token for them.

    Attributes:
        http: bound to the inference address.
        grpc: the inference service.
        run_dir: where the server's logs are.
        ports: by the name of the variable that sets them.
        token: for the inference address.
    """

    http: httpx.Client
    grpc: inference_pb2_grpc.InferenceAPIsServiceStub
    run_dir: Path
    ports: dict[str, str]
    token: str

    @classmethod
    @contextmanager
    def open(cls, environment: dict[str, str], token: str) -> Iterator[Client]:
        base = f"http://127.0.0.1:{environment['INFERENCE_PORT']}"
        bearer = {"Authorization": f"Bearer {token}"}
        with (
            httpx.Client(base_url=base, headers=bearer, timeout=60) as http,
            grpc.insecure_channel(f"127.0.0.1:{environment['GRPC_INFERENCE_PORT']}") as channel,
        ):
            stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
            yield cls(http, stub, Path(environment["RUN_DIR"]), environment, token)

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What authorizes a gRPC call."""
        return [("protocol", "gRPC"), ("authorization", f"Bearer {self.token}")]

    def predict(self, model: str, **inputs: bytes) -> dict[str, Any]:
        """A gRPC Predictions call; the reply's JSON, an error's as well."""
        request = inference_pb2.PredictionsRequest(model_name=model, input=inputs)
        reply = self.grpc.Predictions(request, metadata=self.metadata, timeout=60)
        return dict(json.loads(reply.prediction))

    def stream(self, model: str, **inputs: bytes) -> list[dict[str, Any]]:
        """A gRPC StreamPredictions call; each message's JSON."""
        request = inference_pb2.PredictionsRequest(model_name=model, input=inputs)
        replies = self.grpc.StreamPredictions(request, metadata=self.metadata, timeout=60)
        return [json.loads(reply.prediction) for reply in replies]


def picture(image: dict[str, Any]) -> NDArray[np.uint8]:
    """An output of a reply -> (h, w, 3) RGB."""
    encoded = np.frombuffer(base64.b64decode(image["b64"], validate=True), np.uint8)
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    assert decoded is not None
    assert decoded.shape == (image["height"], image["width"], 3)
    return decoded


def heat(explanation: dict[str, Any]) -> NDArray[np.float32]:
    """A heatmap asked for with ``colormap`` bone -> (h, w), brighter where it is hotter."""
    return picture(explanation["heatmap"]).mean(axis=2, dtype=np.float32)


def peak_in_photo(reply: dict[str, Any], explanation: dict[str, Any]) -> tuple[float, float]:
    """The hottest place (x, y) in the photo's own pixels."""
    hot = heat(explanation)
    y, x = np.unravel_index(int(hot.argmax()), hot.shape)
    x0, y0, x1, y1 = reply["image"]["seen"]
    return x0 + (x + 0.5) * (x1 - x0) / hot.shape[1], y0 + (y + 0.5) * (y1 - y0) / hot.shape[0]
