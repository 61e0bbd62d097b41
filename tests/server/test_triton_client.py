"""Triton's own client, from an environment of its own, against a real server.

``tritonclient`` over HTTP and gRPC, each synchronous and with asyncio: what it sends is answered as
plain HTTP answers it, and what it raises says what was wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from camserve.protocols.output_tensors import OUTPUT_METADATA
from camserve_cli.open_inference.service import EXTENSIONS
from tests.support import color_resnet, contract
from tests.support.color_resnet import LABELS
from tests.support.contract import as_v2_has_it, assert_replies_close
from tests.support.kserve_clients.calls import Failure, options, pack, photos
from tests.support.kserve_clients.environments import ClientProcess
from tests.support.kserve_clients.samples import (
    BLUE,
    GREEN,
    OPTIONS,
    PHOTO,
    RED,
    REFUSALS,
    TWO_DISCS,
    labels,
    large_jpeg,
    numbered_photo,
)
from tests.support.kserve_clients.server import OpenInferenceServer
from tests.support.scripts import COLOR_MODEL

pytestmark = pytest.mark.env

TRANSPORTS = ("http", "http aio", "grpc", "grpc aio")
each_transport = pytest.mark.parametrize("transport", TRANSPORTS)


class Triton:
    """Triton's client, bound to a server.

    Args:
        client: the process that makes the calls.
        server: that answers them.
    """

    def __init__(self, client: ClientProcess, server: OpenInferenceServer) -> None:
        self._client = client
        self._server = server

    def infer(self, transport: str, *inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The reply to a request, as KServe v2 has it in JSON.

        Args:
            transport: of the client.
            inputs: of ``calls``.
            more: arguments of the client's ``infer``.

        Raises:
            Failure: the client raised.
        """
        return dict(self._call("infer", transport, **self._request(inputs, more)))

    def outcomes(
        self, transport: str, *inputs: dict[str, Any], **more: Any
    ) -> list[dict[str, Any]]:
        """Each photo's plain reply, or its error, in a reply that is as the contract has it."""
        return _outcomes(self.infer(transport, *inputs, **more))

    def together(self, transport: str, *inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The replies to requests that are sent at the same time, in their order."""
        requests = [self._request(one, {}) for one in inputs]
        return list(self._call("together", transport, requests=requests))

    def method(self, transport: str, name: str, *arguments: Any, token: str | None = None) -> Any:
        """What another method of the client returns."""
        used = self._server.token if token is None else token
        return self._call("method", transport, name=name, arguments=arguments, token=used)

    def refusal(self, transport: str, *inputs: dict[str, Any], **more: Any) -> Failure:
        """What the client raises."""
        with pytest.raises(Failure) as caught:
            self.infer(transport, *inputs, **more)
        return caught.value

    def _request(self, inputs: Any, more: dict[str, Any]) -> dict[str, Any]:
        return {"model_name": COLOR_MODEL, "token": self._server.token, "inputs": inputs, **more}

    def _call(self, do: str, transport: str, **asked: Any) -> Any:
        url = self._server.http if transport.startswith("http") else self._server.grpc
        where = {"transport": transport, "url": url, "authority": self._server.authority}
        return self._client.call(do=do, **where, **asked)


def _outcomes(reply: dict[str, Any]) -> list[dict[str, Any]]:
    """Each photo's plain reply, or its error."""
    names = ("id", "model_name", "model_version", "outputs")
    return contract.outcomes({name: reply[name] for name in names}, "v2")


@pytest.fixture(scope="module")
def client(triton: ClientProcess, open_inference: OpenInferenceServer) -> Triton:
    """Triton's client, bound to the server of these tests."""
    return Triton(triton, open_inference)


# The same explanation as over plain HTTP


@pytest.fixture(scope="module")
def plain(open_inference: OpenInferenceServer) -> dict[str, Any]:
    """The reply to the photo of two discs, and all options, over plain HTTP."""
    return as_v2_has_it(open_inference.explain(PHOTO, **OPTIONS))


@each_transport
def test_options_as_inputs(client: Triton, plain: dict[str, Any], transport: str) -> None:
    (found,) = client.outcomes(transport, photos(PHOTO), *options(**OPTIONS))
    assert_replies_close(found, plain)


@each_transport
def test_options_as_parameters(client: Triton, plain: dict[str, Any], transport: str) -> None:
    (found,) = client.outcomes(transport, photos(PHOTO), parameters=OPTIONS)
    assert_replies_close(found, plain)


@each_transport
def test_pixels(client: Triton, plain: dict[str, Any], transport: str) -> None:
    pixels = pack("pixels", TWO_DISCS[None])
    (found,) = client.outcomes(transport, pixels, parameters=OPTIONS)
    assert_replies_close(found, plain)


@each_transport
def test_pixels_as_floats(client: Triton, plain: dict[str, Any], transport: str) -> None:
    pixels = pack("pixels", TWO_DISCS[None].astype(np.float32))
    asked = {**OPTIONS, "input_kind": "pixels"}
    (found,) = client.outcomes(transport, pixels, parameters=asked)
    assert_replies_close(found, plain)


@each_transport
def test_the_networks_own_input(client: Triton, transport: str) -> None:
    photo = color_resnet.photo(("green", (112, 112), 60), width=224, height=224)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalized = ((photo / 255 - mean) / std).astype(np.float32).transpose(2, 0, 1)[None]
    kind = options(input_kind="normalized", outputs="map")
    (found,) = client.outcomes(transport, pack("input", normalized), *kind)
    assert labels([found]) == ["green"]
    assert found["explanations"][0]["evidence"]


@each_transport
def test_three_photos_with_options_of_all_and_of_each(client: Triton, transport: str) -> None:
    targets = pack("target", np.array(["blue", "top:1", "predicted"], object))
    found = client.outcomes(
        transport, photos(PHOTO, RED, GREEN), targets, *options(outputs="map", top_k=2)
    )
    assert labels(found) == ["red", "red", "green"]
    explained = [[one["label"] for one in outcome["explanations"]] for outcome in found]
    assert explained == [["blue"], ["red"], ["green"]]


@each_transport
def test_predictions_alone(client: Triton, transport: str) -> None:
    (found,) = client.outcomes(transport, photos(RED), *options(explain=False, top_k=1))
    assert labels([found]) == ["red"]
    assert found["explanations"] == []


@pytest.mark.parametrize("transport", ["http", "http aio"])
def test_everything_in_json(client: Triton, plain: dict[str, Any], transport: str) -> None:
    """``binary_data=False``: photos in base64."""
    asked = (photos(PHOTO), *options(**OPTIONS))
    (found,) = client.outcomes(transport, *asked, in_json=True)
    assert_replies_close(found, plain)


@each_transport
def test_an_input_of_any_name(client: Triton, transport: str) -> None:
    named = photos(RED, name="7f0bd4d4-1d9f-4f3c-8ee5-0a5e4cb2d5fd")
    assert labels(client.outcomes(transport, named)) == ["red"]


# What comes back


@each_transport
def test_the_id_model_and_version_come_back(client: Triton, transport: str) -> None:
    asked = {"request_id": "request 7", "model_version": "1.0"}
    reply = client.infer(transport, photos(RED), **asked)
    assert (reply["id"], reply["model_name"]) == ("request 7", COLOR_MODEL)
    assert reply["model_version"] == "1.0"


@each_transport
def test_wanted_outputs_alone(client: Triton, transport: str) -> None:
    wanted = [{"name": "mask"}, {"name": "label"}]
    found = contract.arrays(client.infer(transport, photos(RED), outputs=wanted))
    assert found.keys() == {"mask", "label"}
    assert found["label"][0, 0] == "red"
    assert contract.decoded({"b64": found["mask"][0, 0]}).shape == (224, 224, 3)


@pytest.mark.parametrize("transport", ["http", "http aio"])
def test_all_outputs_stand_behind_the_json_where_none_is_named(
    client: Triton, transport: str
) -> None:
    reply = client.infer(transport, photos(RED))
    assert reply["binary"] == [one["name"] for one in reply["outputs"]]


@pytest.mark.parametrize("transport", ["http", "http aio"])
def test_outputs_with_and_without_binary_data(client: Triton, transport: str) -> None:
    wanted = [
        {"name": "label", "binary_data": False},
        {"name": "probability", "binary_data": True},
        {"name": "heatmap", "binary_data": False},
    ]
    reply = client.infer(transport, photos(RED), outputs=wanted)
    assert reply["binary"] == ["probability"]
    assert contract.arrays(reply)["label"][0, 0] == "red"


@each_transport
def test_classification(client: Triton, transport: str) -> None:
    wanted = [{"name": "probability", "class_count": 2}]
    (best, second) = contract.arrays(client.infer(transport, photos(PHOTO), outputs=wanted))[
        "probability"
    ][0]
    probability, index, label = best.split(":")
    assert 0 < float(probability) < 1
    assert (index, label) == (str(LABELS.index("red")), "red")
    assert second.endswith(":4:magenta")


@each_transport
def test_reserved_parameters(client: Triton, transport: str) -> None:
    """Sequences, priority and timeout are accepted, and change no answer."""
    reserved = {
        "sequence_id": 42,
        "sequence_start": True,
        "sequence_end": True,
        "priority": 1,
        "timeout": 30_000_000,
    }
    assert labels(client.outcomes(transport, photos(RED), **reserved)) == ["red"]


@each_transport
def test_a_timeout_that_passes(client: Triton, transport: str) -> None:
    failure = client.refusal(transport, photos(RED), timeout=1000)
    assert failure.status in ("504", "StatusCode.DEADLINE_EXCEEDED")
    assert "no answer in 0.001 s" in failure.message


@each_transport
@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client: Triton, plain: dict[str, Any], transport: str, algorithm: str) -> None:
    """Both ways over HTTP; of the request over gRPC."""
    asked = (photos(PHOTO), *options(**OPTIONS))
    (found,) = client.outcomes(transport, *asked, compression=algorithm)
    assert_replies_close(found, plain)


@pytest.mark.parametrize("transport", ["http", "http aio"])
def test_the_client_writes_to_the_headers_that_it_gets(client: Triton, transport: str) -> None:
    """So that each call needs its own, as docs/clients.md says (``infer`` in http/_client.py)."""
    assert "Inference-Header-Content-Length" in client.infer(transport, photos(RED))["headers"]


# Errors


@each_transport
@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_says_why(client: Triton, transport: str, name: str) -> None:
    refused = REFUSALS[name]
    failure = client.refusal(transport, *refused.inputs, **refused.more)
    is_http = transport.startswith("http")
    expected = refused.http if is_http else f"StatusCode.{refused.grpc}"
    assert (failure.kind, failure.status) == ("InferenceServerException", expected)
    assert refused.message in failure.message
    assert client.outcomes(transport, photos(BLUE))


@each_transport
def test_a_photo_that_fails_has_its_error_in_its_place(client: Triton, transport: str) -> None:
    found = client.outcomes(transport, photos(RED, b"junk", BLUE), *options(outputs="map"))
    assert labels(found) == ["red", "unsupported_format", "blue"]


@each_transport
def test_a_server_that_is_away(
    triton: ClientProcess, server_away: OpenInferenceServer, transport: str
) -> None:
    client = Triton(triton, server_away)
    failure = client.refusal(transport, photos(RED))
    assert failure.status in ("503", "StatusCode.UNAVAILABLE")
    assert "try again later" in failure.message
    for method in ("is_server_live", "is_server_ready"):
        assert client.method(transport, method) is False


# Health and metadata


@each_transport
@pytest.mark.parametrize("token", ["", "wrong"])
def test_health_needs_no_token(client: Triton, transport: str, token: str) -> None:
    for method in ("is_server_live", "is_server_ready"):
        assert client.method(transport, method, token=token) is True
    for version in ("", "1.0"):
        assert client.method(transport, "is_model_ready", COLOR_MODEL, version, token=token) is True


@pytest.mark.parametrize("transport", ["http", "http aio"])
def test_a_model_that_is_not_there_is_not_ready_over_http(client: Triton, transport: str) -> None:
    assert client.method(transport, "is_model_ready", "nope") is False
    assert client.method(transport, "is_model_ready", COLOR_MODEL, "9") is False


@pytest.mark.parametrize("transport", ["grpc", "grpc aio"])
@pytest.mark.parametrize("model", [("nope",), (COLOR_MODEL, "9")])
def test_a_model_that_is_not_there_is_an_error_over_grpc(
    client: Triton, transport: str, model: tuple[str, ...]
) -> None:
    with pytest.raises(Failure, match="is served here") as caught:
        client.method(transport, "is_model_ready", *model)
    assert caught.value.status == "StatusCode.NOT_FOUND"


@each_transport
def test_metadata_of_the_server(client: Triton, transport: str) -> None:
    told = client.method(transport, "get_server_metadata")
    assert (told["name"], told["extensions"]) == ("camserve", list(EXTENSIONS))


@each_transport
def test_metadata_of_a_model(client: Triton, transport: str) -> None:
    told = client.method(transport, "get_model_metadata", COLOR_MODEL)
    assert (told["name"], told["versions"], told["platform"]) == (
        COLOR_MODEL,
        ["1.0"],
        "torchserve",
    )
    (image,) = told["inputs"]
    assert (image["name"], image["datatype"], ints(image["shape"])) == ("image", "BYTES", (-1,))
    outputs = {one["name"]: (one["datatype"], ints(one["shape"])) for one in told["outputs"]}
    assert outputs == OUTPUT_METADATA


def ints(shape: list[int | str]) -> tuple[int, ...]:
    """A shape; in JSON of protobuf, its lengths are text."""
    return tuple(map(int, shape))


@each_transport
def test_metadata_need_a_token(client: Triton, transport: str) -> None:
    for call in (("get_server_metadata",), ("get_model_metadata", COLOR_MODEL)):
        with pytest.raises(Failure, match="token is missing"):
            client.method(transport, *call, token="")


@pytest.mark.parametrize("transport", ["grpc", "grpc aio"])
def test_what_triton_adds_is_not_implemented_over_grpc(client: Triton, transport: str) -> None:
    with pytest.raises(Failure) as caught:
        client.method(transport, "get_model_config", COLOR_MODEL)
    assert caught.value.status == "StatusCode.UNIMPLEMENTED"


@pytest.mark.parametrize("transport", ["http", "http aio"])
def test_what_triton_adds_is_no_path_over_http(client: Triton, transport: str) -> None:
    with pytest.raises(Failure, match="no such path") as caught:
        client.method(transport, "get_model_config", COLOR_MODEL)
    assert caught.value.status == "404"


# Many and large


@each_transport
def test_64_at_once_get_their_own_answers(client: Triton, transport: str) -> None:
    asked = [[photos(numbered_photo(number)), *options(outputs="map")] for number in range(64)]
    replies = client.together(transport, *asked)
    found = [outcome for reply in replies for outcome in _outcomes(reply)]
    assert [one["image"]["width"] for one in found] == [300 + number for number in range(64)]
    assert labels(found) == [LABELS[number % len(LABELS)] for number in range(64)]


@pytest.fixture(scope="module")
def large_photo() -> bytes:
    """A photo of 12 megapixels."""
    return large_jpeg()


@each_transport
def test_a_reply_of_12_megapixels(client: Triton, transport: str, large_photo: bytes) -> None:
    asked = options(size="original", image_format="png", outputs="heatmap,overlay")
    (found,) = client.outcomes(transport, photos(large_photo), *asked)
    (explanation,) = found["explanations"]
    for name in ("heatmap", "overlay"):
        assert contract.decoded(explanation[name]).shape == (3000, 4000, 3)
    assert len(explanation["overlay"]["b64"]) > 8_000_000


# TLS


@each_transport
def test_over_tls_and_through_the_edge(
    triton: ClientProcess, over_tls: OpenInferenceServer, transport: str
) -> None:
    client = Triton(triton, over_tls)
    assert labels(client.outcomes(transport, photos(BLUE))) == ["blue"]
    assert client.method(transport, "is_model_ready", COLOR_MODEL) is True
    for name in ("not a photo", "an unknown model", "a request too large"):
        refused = REFUSALS[name]
        failure = client.refusal(transport, *refused.inputs, **refused.more)
        assert (failure.status.removeprefix("StatusCode."), refused.message in failure.message) == (
            refused.http if transport.startswith("http") else refused.grpc,
            True,
        )
    failure = client.refusal(transport, photos(BLUE), token="wrong")
    assert failure.status in ("401", "StatusCode.UNAUTHENTICATED")
