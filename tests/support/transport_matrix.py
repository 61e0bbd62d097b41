"""Every way in which a photo and its options travel to a server, as one call each."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from tests.support import contract
from tests.support.contract import inputs_of
from tests.support.option_strategies import Options, path_of, text_of
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import Client, infer_request

T = TypeVar("T")


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """The results of calls that are made at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


@dataclass(frozen=True)
class Answered:
    """What came back for one photo.

    Attributes:
        outcome: its plain reply, or its error.
        status: HTTP's; over gRPC, that of the outcome.
    """

    outcome: dict[str, Any]
    status: int


class Transport(Protocol):
    """A call with a photo and its options, to the model of the constructed ResNet50."""

    def __call__(
        self, server: Client, photo: bytes, options: Options, method: str = "POST"
    ) -> Answered:
        """What became of the photo; the reply's form and status are right."""


def texts(options: Options) -> dict[str, str]:
    """Every option as text; what no text can carry is replaced.

    A field without a name is left out: of such a form, TorchServe says 500 by itself.
    """
    return {
        name: text_of(value).encode("utf-8", "replace").decode()
        for name, value in options.items()
        if name.strip()
    }


def b64(photo: bytes) -> str:
    return base64.b64encode(photo).decode()


def _json(body: Any, **more: Any) -> dict[str, Any]:
    """A JSON body, NaN and all."""
    headers = {"Content-Type": "application/json", **more.pop("headers", {})}
    return {"content": json.dumps(body), "headers": headers, **more}


def _http(
    path: str,
    content: Callable[[bytes, Options], Mapping[str, Any]],
    protocol: contract.Protocol = "plain",
    in_path: bool = False,
    place: int = 0,
) -> Transport:
    """A call of ``path``; the photo is the one at ``place`` of the reply's."""

    def call(server: Client, photo: bytes, options: Options, method: str = "POST") -> Answered:
        # The comma and the equals sign part options; whatever else is escaped.
        escaped = quote(path_of(options), safe=",=", errors="replace")
        url = f"{path}/1.0/{escaped}" if in_path else path
        response = server.http.request(method, url, **content(photo, options))
        assert response.headers["content-type"] == "application/json", response.text
        outcomes = contract.outcomes(response.json(), protocol)
        # A request that is refused has one error, however many its photos.
        outcome = outcomes[place] if place < len(outcomes) else outcomes[0]
        statuses = [one.get("error", {"status": 200})["status"] for one in outcomes]
        assert response.status_code == (200 if 200 in statuses else max(statuses))
        return Answered(outcome, response.status_code)

    return call


def _grpc(
    inputs: Callable[[bytes, Options], Mapping[str, bytes]], stream: bool = False
) -> Transport:
    def call(server: Client, photo: bytes, options: Options, method: str = "POST") -> Answered:
        if stream:
            (reply,) = server.stream(COLOR_MODEL, **inputs(photo, options))
        else:
            reply = server.predict(COLOR_MODEL, **inputs(photo, options))
        (outcome,) = contract.outcomes(reply, "plain")
        return Answered(outcome, outcome.get("error", {"status": 200})["status"])

    return call


def _open_inference(
    server: Client, photo: bytes, options: Options, method: str = "POST"
) -> Answered:
    carried = {
        name: value if _fits(value) else text_of(value).encode("utf-8", "replace")
        for name, value in options.items()
    }
    reply = server.infer(infer_request(COLOR_MODEL, inputs_of([photo], **carried), id="seven"))
    assert reply["id"] == "seven"
    (outcome,) = contract.outcomes(reply, "v2")
    return Answered(outcome, outcome.get("error", {"status": 200})["status"])


def _fits(value: Any) -> bool:
    """Whether TorchServe hands a value on as it is; of NaN, its own JSON fails."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63)


def _raw(photo: bytes, **more: Any) -> dict[str, Any]:
    return {"content": photo, "headers": {"Content-Type": "image/png"}, **more}


def _header(photo: bytes, options: Options, name: str = "X-Explain") -> dict[str, Any]:
    headers = {"Content-Type": "image/png", name: json.dumps(options)}
    return {"content": photo, "headers": headers}


def _v2(photo: bytes, options: Options) -> dict[str, Any]:
    return _json({"id": "seven", "inputs": inputs_of([b64(photo)], **options)})


def _columns(photo: bytes, options: Options) -> dict[str, Any]:
    """The photo is the second of two; each has its own element of every option."""
    (image, *columns) = inputs_of([b64(photo)], **options)
    for one in (image, *columns):
        one["data"] *= 2
        one["shape"] = [2, 1]
        one["data"] = [[element] for element in one["data"]]
    return _json({"inputs": [image, *columns]})


_PREDICT, _EXPLAIN = f"/predictions/{COLOR_MODEL}", f"/explanations/{COLOR_MODEL}"
_V1, _V2 = f"/v1/models/{COLOR_MODEL}", f"/v2/models/{COLOR_MODEL}"
_NAMED = {"model_name": COLOR_MODEL}

HTTP_TRANSPORTS: dict[str, Transport] = {
    "raw body, header": _http(_PREDICT, _header),
    "raw body, header in lower case": _http(
        _PREDICT, lambda photo, options: _header(photo, options, "x-explain")
    ),
    "raw body, URL path": _http(_PREDICT, lambda photo, _: _raw(photo), in_path=True),
    "raw body without a content type": _http(
        _PREDICT, lambda photo, _: {"content": photo}, in_path=True
    ),
    "raw body of base64 text": _http(
        _PREDICT,
        lambda photo, _: {"content": b64(photo), "headers": {"Content-Type": "text/plain"}},
        in_path=True,
    ),
    "multipart": _http(
        _PREDICT, lambda photo, options: {"files": {"data": photo}, "data": texts(options)}
    ),
    "multipart, options as JSON": _http(
        _PREDICT,
        lambda photo, options: {
            "files": {"image": photo}, "data": {"options": json.dumps(options)}
        },
    ),
    "urlencoded": _http(
        _PREDICT, lambda photo, options: {"data": {"data": b64(photo), **texts(options)}}
    ),
    "JSON, image object": _http(
        _PREDICT, lambda photo, options: _json({"image": {"b64": b64(photo)}, **options})
    ),
    "JSON, image string": _http(
        _PREDICT, lambda photo, options: _json({"image": b64(photo), **options})
    ),
    "JSON, data": _http(
        _PREDICT, lambda photo, options: _json({"data": b64(photo), **options})
    ),
    "JSON, b64": _http(_PREDICT, lambda photo, options: _json({"b64": b64(photo), **options})),
    "explanations": _http(_EXPLAIN, lambda photo, _: _raw(photo), in_path=True),
    "explanations, JSON": _http(
        _EXPLAIN, lambda photo, options: _json({"image": b64(photo), **options})
    ),
    "invocations": _http(
        "/invocations", lambda photo, options: _raw(photo, params=_NAMED | texts(options))
    ),
    "invocations, multipart": _http(
        "/invocations",
        lambda photo, options: {"files": {"data": photo}, "data": _NAMED | texts(options)},
    ),
    "invocations, JSON with a query": _http(
        "/invocations",
        lambda photo, options: _json(
            {"image": b64(photo)}, params=_NAMED | texts(options)
        ),
    ),
    "invocations, KServe v1": _http(
        "/invocations",
        lambda photo, options: _json(
            {"instances": [b64(photo)]}, params=_NAMED | texts(options)
        ),
        "v1",
    ),
    "M/predict": _http(
        f"/{COLOR_MODEL}/predict", lambda photo, options: _raw(photo, params=texts(options))
    ),
    "v1 predict": _http(
        f"{_V1}:predict",
        lambda photo, options: _json({"instances": [{"image": b64(photo), **options}]}),
        "v1",
    ),
    "v1 explain": _http(
        f"{_V1}:explain",
        lambda photo, options: _json(
            {"instances": [{"image": {"b64": b64(photo)}, **options}]}
        ),
        "v1",
    ),
    "v1 predict, parameters": _http(
        f"{_V1}:predict",
        lambda photo, options: _json({"instances": [b64(photo)], "parameters": options}),
        "v1",
    ),
    "v1 predict, the second of three": _http(
        f"{_V1}:predict",
        lambda photo, options: _json(
            {
                "instances": [b64(photo), {"image": b64(photo), **options}, {"image": "@"}],
                "parameters": {"explain": True},
            }
        ),
        "v1",
        place=1,
    ),
    "v1 predict, header": _http(
        f"{_V1}:predict",
        lambda photo, options: _json(
            {"instances": [b64(photo)]}, headers={"X-Explain": json.dumps(options)}
        ),
        "v1",
    ),
    "v1 by predictions": _http(
        _PREDICT,
        lambda photo, options: _json({"instances": [b64(photo)], "parameters": options}),
        "v1",
    ),
    "v2 infer": _http(f"{_V2}/infer", _v2, "v2"),
    "v2 explain": _http(f"{_V2}/explain", _v2, "v2"),
    "v2 infer, parameters": _http(
        f"{_V2}/infer",
        lambda photo, options: _json(
            {"inputs": inputs_of([b64(photo)]), "parameters": options}
        ),
        "v2",
    ),
    "v2 infer, parameters of the input": _http(
        f"{_V2}/infer",
        lambda photo, options: _json(
            {"inputs": [{**inputs_of([b64(photo)])[0], "parameters": options}]}
        ),
        "v2",
    ),
    "v2 infer, the second of two": _http(f"{_V2}/infer", _columns, "v2", place=1),
    "v2 by explanations": _http(_EXPLAIN, _v2, "v2"),
}  # fmt: skip
GRPC_WAYS: dict[str, Transport] = {
    "Predictions": _grpc(
        lambda photo, options: {
            "data": photo, **{name: text.encode() for name, text in texts(options).items()}
        }
    ),
    "Predictions, options as JSON": _grpc(
        lambda photo, options: {"data": photo, "options": json.dumps(options).encode()}
    ),
    "StreamPredictions": _grpc(
        lambda photo, options: {
            "image": photo, **{name: text.encode() for name, text in texts(options).items()}
        },
        stream=True,
    ),
    "Open Inference": _open_inference,
}  # fmt: skip
WAYS: dict[str, Transport] = HTTP_TRANSPORTS | GRPC_WAYS


def in_tensors(way: str) -> bool:
    """Whether a way's replies are tensors, which lack some of a plain reply."""
    return way.startswith(("v2", "Open"))
