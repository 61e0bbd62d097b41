"""Callers that keep asking a server, each about photos of its own, and check every answer."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from types import TracebackType
from typing import Any

import grpc
import httpx
import inference_pb2
import inference_pb2_grpc
import numpy as np
from numpy.typing import NDArray

from tests.support import color_resnet
from tests.support.fault_server import FaultServer, wait_until
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import picture

#: An overlay without a heatmap: the photo itself, pixel by pixel.
OPTIONS = {"outputs": "overlay", "alpha": "0", "image_format": "png", "size": "original"}
ANSWERED = "answered"
#: Nothing came within a caller's patience.
UNANSWERED = "unanswered"
#: More than any wait for a worker that comes back, in seconds.
PATIENCE = 30.0
#: What a caller is told when its batch is lost with the worker.
LOST_BATCH_ERRORS = {"HTTP 500", "HTTP 507", "gRPC INTERNAL", "gRPC RESOURCE_EXHAUSTED"}
#: And when the queue is full.
QUEUE_FULL_ERRORS = {"HTTP 503", "gRPC INTERNAL"}

#: Asks about a photo, with a token -> what became of it, and the reply that was right.
Caller = Callable[["Photo", str], tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Photo:
    """A photo that no other is like.

    Attributes:
        content: PNG.
        pixels: (h, w, 3) RGB.
        label: the colour that covers most of it.
    """

    content: bytes
    pixels: NDArray[np.uint8]
    label: str

    @classmethod
    def draw(cls, random: np.random.Generator) -> Photo:
        most, least = (str(name) for name in random.choice(color_resnet.LABELS, 2, replace=False))
        discs = ((most, (34, 36), 18), (least, (66, 36), 10))
        pixels = color_resnet.photo(*discs, width=96, height=72)
        pixels[:8, :8] = random.integers(0, 256, (8, 8, 3), np.uint8)
        return cls(color_resnet.png(pixels), pixels, most)

    def verdict(self, reply: dict[str, Any]) -> str:
        """``answered``, or what is wrong with the reply as one to this photo."""
        (explanation,) = reply["explanations"]
        labels = {reply["predictions"][0]["label"], explanation["label"]}
        if labels != {self.label}:
            return f"WRONG: {labels}, not {self.label}"
        if not np.array_equal(picture(explanation["overlay"]), self.pixels):
            return "WRONG: another photo's overlay"
        return ANSWERED


@dataclass(frozen=True)
class Outcome:
    """What became of a request.

    Attributes:
        kind: ``answered``, ``HTTP 507``, ``HTTP 500 internal_error`` and the like, or what is
            wrong.
        sent, ended: in seconds of ``time.monotonic()``.
        version: of the model that answered.
    """

    kind: str
    sent: float
    ended: float
    version: str = ""


@contextmanager
def over_http(
    server: FaultServer, model: str = COLOR_MODEL, timeout: float = PATIENCE
) -> Iterator[Caller]:
    """One connection over HTTP."""
    with httpx.Client(base_url=server.inference, timeout=timeout) as http:

        def ask(photo: Photo, token: str) -> tuple[str, dict[str, Any]]:
            bearer = {"Authorization": f"Bearer {token}"}
            try:
                reply = http.post(
                    f"/predictions/{model}",
                    files={"data": photo.content},
                    data=OPTIONS,
                    headers=bearer,
                )
            except httpx.TimeoutException:
                return UNANSWERED, {}
            except httpx.HTTPError as failure:
                return f"WRONG: {failure!r}", {}
            body = reply.json()
            if reply.status_code == 200:
                return photo.verdict(body), body
            code = f" {body['error']['code']}" if "error" in body else ""
            return f"HTTP {reply.status_code}{code}", {}

        yield ask


@contextmanager
def over_grpc(
    server: FaultServer, model: str = COLOR_MODEL, timeout: float = PATIENCE
) -> Iterator[Caller]:
    """One connection over gRPC."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server.grpc, options) as channel:
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)

        def ask(photo: Photo, token: str) -> tuple[str, dict[str, Any]]:
            inputs = {name: value.encode() for name, value in OPTIONS.items()}
            request = inference_pb2.PredictionsRequest(
                model_name=model, input={"data": photo.content, **inputs}
            )
            bearer = [("protocol", "gRPC"), ("authorization", f"Bearer {token}")]
            try:
                reply = stub.Predictions(request, metadata=bearer, timeout=timeout)
            except grpc.RpcError as failure:
                late = failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                return UNANSWERED if late else f"gRPC {failure.code().name}", {}
            body = json.loads(reply.prediction)
            if "error" in body:
                return f"gRPC {body['error']['code']}", {}
            return photo.verdict(body), body

        yield ask


class Traffic:
    """Connections over HTTP and gRPC, half each, that ask until they are told to stop.

    Attributes:
        token: that the next requests carry.
        outcomes: so far, in the order in which they ended.
    """

    def __init__(self, server: FaultServer, connections: int = 12) -> None:
        self.token = server.token()
        self.outcomes: list[Outcome] = []
        self._stop = Event()
        kinds = (over_http, over_grpc)
        self._threads = [
            Thread(target=self._ask, args=(kinds[n % 2](server), n)) for n in range(connections)
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask no more, and wait until every request that is under way has ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def kinds(self) -> Counter[str]:
        """How many requests ended how."""
        return Counter(outcome.kind for outcome in list(self.outcomes))

    @property
    def slowest(self) -> float:
        """The longest that a request took, in seconds."""
        return max(outcome.ended - outcome.sent for outcome in list(self.outcomes))

    def go_on(self, answers: int = 24, seconds: float = 60) -> float:
        """Wait for so many more right answers; the seconds until the first of them."""
        start, seen = time.monotonic(), len(self.outcomes)

        def right() -> list[Outcome]:
            return [one for one in self.outcomes[seen:] if one.kind == ANSWERED]

        wait_until(
            lambda: len(right()) >= answers, seconds, lambda: f"{answers} answers; {self.kinds}"
        )
        return right()[0].ended - start

    def _ask(self, connection: Any, seed: int) -> None:
        random = np.random.default_rng(seed)
        with connection as ask:
            while not self._stop.is_set():
                photo = Photo.draw(random)
                sent = time.monotonic()
                kind, reply = ask(photo, self.token)
                version = reply["model"]["version"] if reply else ""
                self.outcomes.append(Outcome(kind, sent, time.monotonic(), version))
                # A refusal comes at once; nobody asks again without a pause.
                self._stop.wait(0.01 if reply else 0.2)
