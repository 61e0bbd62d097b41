"""KServe's own client, from an environment of its own, against a real server.

The ``kserve`` SDK over REST (v1, and v2 in JSON and with binary tensors) and over gRPC (with typed
and with raw contents): what it sends is answered as plain HTTP answers it, and what it raises says
what was wrong.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

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

REST = ("v2 json", "v2 binary")
GRPC = ("grpc typed", "grpc raw")
each_of_v2 = pytest.mark.parametrize("transport", [*REST, *GRPC])
#: The client has no floats in the parameters of gRPC (``to_grpc_parameters`` in infer_type.py), so
#: such an option is an input, or text.
OPTIONS_AS_TEXT = {
    name: str(value) if isinstance(value, float) else value for name, value in OPTIONS.items()
}


class KServe:
    """KServe's client, bound to a server.

    Args:
        client: the process that makes the calls.
        server: that answers them.
    """

    def __init__(self, client: ClientProcess, server: OpenInferenceServer) -> None:
        self._client = client
        self._server = server

    def infer(self, transport: str, *inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The reply to a request of v2, as v2 has it in JSON.

        Args:
            transport: of the client.
            inputs: of ``calls``.
            more: arguments of the client's ``InferRequest``.

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
        """What came of requests of one photo that are sent at the same time, in their order."""
        requests = [self._request(one, {}) for one in inputs]
        replies = self._call("together", transport, requests=requests)
        return [outcome for reply in replies for outcome in _outcomes(reply)]

    def v1(self, verb: str, body: dict[str, Any], token: str | None = None) -> dict[str, Any]:
        """The reply to a body of v1. The client calls ``:predict`` ``infer``."""
        asked = {"verb": verb, "model": COLOR_MODEL, "body": body, "token": self._token(token)}
        return dict(self._call("v1", "v1", **asked))

    def method(self, transport: str, name: str, *arguments: Any, token: str | None = None) -> Any:
        """What another method of the client returns."""
        asked = {"name": name, "arguments": arguments, "token": self._token(token)}
        return self._call("method", transport, **asked)

    def refusal(self, transport: str, *inputs: dict[str, Any], **more: Any) -> Failure:
        """What the client raises."""
        with pytest.raises(Failure) as caught:
            self.infer(transport, *inputs, **more)
        return caught.value

    def _token(self, token: str | None) -> str:
        return self._server.token if token is None else token

    def _request(self, inputs: Any, more: dict[str, Any]) -> dict[str, Any]:
        return {"model_name": COLOR_MODEL, "token": self._server.token, "inputs": inputs, **more}

    def _call(self, do: str, transport: str, **asked: Any) -> Any:
        scheme = "https" if self._server.authority else "http"
        url = self._server.grpc if transport in GRPC else f"{scheme}://{self._server.http}"
        where = {"transport": transport, "url": url, "authority": self._server.authority}
        return self._client.call(do=do, **where, **asked)


def _outcomes(reply: dict[str, Any]) -> list[dict[str, Any]]:
    """Each photo's plain reply, or its error.

    The client keeps no version of a REST reply (``InferResponse.from_bytes`` in infer_type.py).
    """
    names = ("id", "model_name", "outputs")
    kept = {name: reply[name] for name in names} | {"model_version": "1.0"}
    return contract.outcomes(kept, "v2")


@pytest.fixture(scope="module")
def client(kserve: ClientProcess, open_inference: OpenInferenceServer) -> KServe:
    """KServe's client, bound to the server of these tests."""
    return KServe(kserve, open_inference)


@pytest.fixture(scope="module")
def plain(open_inference: OpenInferenceServer) -> dict[str, Any]:
    """The reply to the photo of two discs, and all options, over plain HTTP."""
    return open_inference.explain(PHOTO, **OPTIONS)


def instance(photo: bytes, **values: Any) -> dict[str, Any]:
    """A photo of v1, with its own options."""
    return {"image": {"b64": base64.b64encode(photo).decode()}, **values}


# v1


@pytest.mark.parametrize(("verb", "key"), [("infer", "predictions"), ("explain", "explanations")])
def test_v1(client: KServe, plain: dict[str, Any], verb: str, key: str) -> None:
    reply = client.v1(verb, {"instances": [instance(PHOTO)], "parameters": OPTIONS})
    assert reply.keys() == {key}
    (found,) = contract.outcomes(reply, "v1")
    assert_replies_close(found, plain)


def test_v1_of_three_photos_with_options_of_all_and_of_each(client: KServe) -> None:
    instances = [instance(PHOTO, target="blue"), instance(RED, target="top:1"), instance(GREEN)]
    reply = client.v1("infer", {"instances": instances, "parameters": {"outputs": "map"}})
    found = contract.outcomes(reply, "v1")
    assert labels(found) == ["red", "red", "green"]
    explained = [[one["label"] for one in outcome["explanations"]] for outcome in found]
    assert explained == [["blue"], ["red"], ["green"]]


def test_v1_of_pixels(client: KServe, plain: dict[str, Any]) -> None:
    body = {"instances": [TWO_DISCS.tolist()], "parameters": OPTIONS}
    (found,) = contract.outcomes(client.v1("infer", body), "v1")
    assert_replies_close(found, plain)


V1_REFUSALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown option": ({"instances": [instance(RED, alhpa=1)]}, "400", "alhpa"),
    "no instances": ({"instances": []}, "400", "instances"),
    "not a photo": ({"instances": [instance(b"junk")]}, "415", "not recognised"),
    "too many photos": ({"instances": [instance(RED)] * 33}, "413", "up to 32"),
}


@pytest.mark.parametrize("name", V1_REFUSALS)
@pytest.mark.parametrize("verb", ["infer", "explain"])
def test_what_is_refused_in_v1_says_why(client: KServe, verb: str, name: str) -> None:
    body, status, message = V1_REFUSALS[name]
    with pytest.raises(Failure) as caught:
        client.v1(verb, body)
    assert (caught.value.kind, caught.value.status) == ("HTTPStatusError", status)
    assert message in caught.value.message


def test_v1_without_a_token(client: KServe) -> None:
    with pytest.raises(Failure, match="the token is missing") as caught:
        client.v1("infer", {"instances": [instance(RED)]}, token="")
    assert caught.value.status == "401"


# v2: the same explanation as over plain HTTP


@each_of_v2
def test_options_as_inputs(client: KServe, plain: dict[str, Any], transport: str) -> None:
    (found,) = client.outcomes(transport, photos(PHOTO), *options(**OPTIONS))
    assert_replies_close(found, as_v2_has_it(plain))


@each_of_v2
def test_options_as_parameters(client: KServe, plain: dict[str, Any], transport: str) -> None:
    (found,) = client.outcomes(transport, photos(PHOTO), parameters=OPTIONS_AS_TEXT)
    assert_replies_close(found, as_v2_has_it(plain))


@pytest.mark.parametrize("transport", REST)
def test_floats_as_parameters_over_rest(
    client: KServe, plain: dict[str, Any], transport: str
) -> None:
    (found,) = client.outcomes(transport, photos(PHOTO), parameters=OPTIONS)
    assert_replies_close(found, as_v2_has_it(plain))


@pytest.mark.parametrize("transport", GRPC)
def test_floats_as_parameters_over_grpc_the_client_refuses(client: KServe, transport: str) -> None:
    failure = client.refusal(transport, photos(PHOTO), parameters={"alpha": 0.5})
    assert failure.kind == "InvalidInput"


@each_of_v2
def test_options_as_parameters_of_the_input(
    client: KServe, plain: dict[str, Any], transport: str
) -> None:
    photo = {**photos(PHOTO), "claimed": {"parameters": OPTIONS_AS_TEXT}}
    (found,) = client.outcomes(transport, photo)
    assert_replies_close(found, as_v2_has_it(plain))


@each_of_v2
def test_pixels(client: KServe, plain: dict[str, Any], transport: str) -> None:
    pixels = pack("pixels", TWO_DISCS[None])
    (found,) = client.outcomes(transport, pixels, *options(**OPTIONS))
    assert_replies_close(found, as_v2_has_it(plain))


@each_of_v2
def test_pixels_as_floats(client: KServe, plain: dict[str, Any], transport: str) -> None:
    pixels = pack("pixels", TWO_DISCS[None].astype(np.float32))
    asked = options(**OPTIONS, input_kind="pixels")
    (found,) = client.outcomes(transport, pixels, *asked)
    assert_replies_close(found, as_v2_has_it(plain))


@each_of_v2
def test_the_networks_own_input(client: KServe, transport: str) -> None:
    photo = color_resnet.photo(("green", (112, 112), 60), width=224, height=224)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalized = ((photo / 255 - mean) / std).astype(np.float32).transpose(2, 0, 1)[None]
    asked = {"input_kind": "normalized", "outputs": "map"}
    (found,) = client.outcomes(transport, pack("input-0", normalized), parameters=asked)
    assert labels([found]) == ["green"]
    assert found["explanations"][0]["evidence"]


@each_of_v2
def test_three_photos_with_options_of_all_and_of_each(client: KServe, transport: str) -> None:
    targets = pack("target", np.array(["blue", "top:1", "predicted"], object))
    asked = (photos(PHOTO, RED, GREEN), targets, *options(outputs="map", top_k=2))
    found = client.outcomes(transport, *asked)
    assert labels(found) == ["red", "red", "green"]
    explained = [[one["label"] for one in outcome["explanations"]] for outcome in found]
    assert explained == [["blue"], ["red"], ["green"]]


@each_of_v2
def test_predictions_alone(client: KServe, transport: str) -> None:
    (found,) = client.outcomes(transport, photos(RED), *options(explain=False, top_k=1))
    assert labels([found]) == ["red"]
    assert found["explanations"] == []


@each_of_v2
def test_the_sample_of_kserve(client: KServe, transport: str) -> None:
    """Its samples name the input by a UUID, and leave the number of photos open."""
    photo = photos(RED, name="7f0bd4d4-1d9f-4f3c-8ee5-0a5e4cb2d5fd")
    found = client.outcomes(transport, {**photo, "claimed": {"shape": [-1]}})
    assert labels(found) == ["red"]


# v2: what comes back


@each_of_v2
def test_the_id_and_model_come_back(client: KServe, transport: str) -> None:
    reply = client.infer(transport, photos(RED), request_id="request 7")
    assert (reply["id"], reply["model_name"]) == ("request 7", COLOR_MODEL)


@pytest.mark.parametrize("transport", GRPC)
def test_the_version_comes_back_over_grpc(client: KServe, transport: str) -> None:
    assert client.infer(transport, photos(RED), model_version="1.0")["model_version"] == "1.0"
    assert client.infer(transport, photos(RED))["model_version"] == "1.0"


@pytest.mark.parametrize(
    ("transport", "content_type"),
    [("v2 json", "application/json"), ("v2 binary", "application/octet-stream")],
)
def test_the_body_is_json_unless_the_client_asks_for_binary_outputs(
    client: KServe, transport: str, content_type: str
) -> None:
    assert client.infer(transport, photos(RED))["content_type"] == content_type


@each_of_v2
def test_wanted_outputs_alone(client: KServe, transport: str) -> None:
    reply = client.infer(transport, photos(RED), outputs=[{"name": "mask"}, {"name": "label"}])
    found = contract.arrays(reply)
    assert found.keys() == {"mask", "label"}
    assert found["label"][0, 0] == "red"
    assert contract.decoded({"b64": found["mask"][0, 0]}).shape == (224, 224, 3)


@pytest.mark.parametrize("transport", REST)
@pytest.mark.parametrize(
    ("binary", "content_type"), [(True, "application/octet-stream"), (False, "application/json")]
)
def test_outputs_with_and_without_binary_data(
    client: KServe, transport: str, binary: bool, content_type: str
) -> None:
    wanted = [{"name": "label", "parameters": {"binary_data": binary}}]
    reply = client.infer(transport, photos(RED), outputs=wanted)
    assert reply["content_type"] == content_type
    assert contract.arrays(reply)["label"][0, 0] == "red"


@each_of_v2
def test_classification(client: KServe, transport: str) -> None:
    wanted = [{"name": "probability", "parameters": {"classification": 1}}]
    reply = client.infer(transport, photos(RED), outputs=wanted)
    ((best,),) = contract.arrays(reply)["probability"]
    assert best.endswith(":0:red")


@each_of_v2
def test_reserved_parameters(client: KServe, transport: str) -> None:
    """Those of Triton's schedulers are accepted, and change no answer."""
    reserved = {
        "sequence_id": 42,
        "sequence_start": True,
        "sequence_end": True,
        "priority": 1,
        "timeout": 30_000_000,
    }
    assert labels(client.outcomes(transport, photos(RED), parameters=reserved)) == ["red"]


@each_of_v2
def test_a_timeout_that_passes(client: KServe, transport: str) -> None:
    failure = client.refusal(transport, photos(RED), parameters={"timeout": 1000})
    assert failure.status == ("DEADLINE_EXCEEDED" if transport in GRPC else "504")
    assert "no answer in 0.001 s" in failure.message


def test_the_client_writes_to_the_headers_that_it_gets(client: KServe) -> None:
    """So that each call needs its own, as docs/clients.md says (``infer``, inference_client.py)."""
    headers = client.infer("v2 binary", photos(RED))["headers"]
    assert "inference-header-content-length" in map(str.lower, headers)


# v2: errors

# The client names no version over REST.
REFUSED_OVER_REST = [name for name in REFUSALS if name != "an unknown version"]


def refusal(client: KServe, transport: str, name: str) -> Failure:
    """What the client raises for one of the requests that are refused."""
    refused = REFUSALS[name]
    more = dict(refused.more)
    if "outputs" in more:
        more["outputs"] = [
            {"name": one["name"], "parameters": {"classification": one.get("class_count", 1)}}
            for one in more["outputs"]
        ]
    return client.refusal(transport, *refused.inputs, **more)


@pytest.mark.parametrize("transport", REST)
@pytest.mark.parametrize("name", REFUSED_OVER_REST)
def test_what_is_refused_over_rest_says_why(client: KServe, transport: str, name: str) -> None:
    failure = refusal(client, transport, name)
    assert (failure.kind, failure.status) == ("HTTPStatusError", REFUSALS[name].http)
    assert REFUSALS[name].message in failure.message
    assert labels(client.outcomes(transport, photos(BLUE))) == ["blue"]


@pytest.mark.parametrize("transport", GRPC)
@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_over_grpc_says_why(client: KServe, transport: str, name: str) -> None:
    failure = refusal(client, transport, name)
    assert (failure.kind, failure.status) == ("AioRpcError", REFUSALS[name].grpc)
    assert REFUSALS[name].message in failure.message
    assert labels(client.outcomes(transport, photos(BLUE))) == ["blue"]


@each_of_v2
def test_a_photo_that_fails_has_its_error_in_its_place(client: KServe, transport: str) -> None:
    found = client.outcomes(transport, photos(RED, b"junk", BLUE), *options(outputs="map"))
    assert labels(found) == ["red", "unsupported_format", "blue"]


@each_of_v2
def test_a_server_that_is_away(
    kserve: ClientProcess, server_away: OpenInferenceServer, transport: str
) -> None:
    """Over gRPC, the client has tried three times before it raises (its ``retries``)."""
    failure = KServe(kserve, server_away).refusal(transport, photos(RED))
    assert failure.status == ("UNAVAILABLE" if transport in GRPC else "503")
    assert "try again later" in failure.message


def test_a_server_that_is_away_is_not_live_over_grpc(
    kserve: ClientProcess, server_away: OpenInferenceServer
) -> None:
    client = KServe(kserve, server_away)
    for method in ("is_server_live", "is_server_ready"):
        assert client.method("grpc raw", method) is False


@pytest.mark.parametrize(
    ("transport", "method"), [("v2 json", "is_server_live"), ("v2 json", "is_server_ready")]
)
def test_a_server_that_is_away_is_an_error_over_rest(
    kserve: ClientProcess, server_away: OpenInferenceServer, transport: str, method: str
) -> None:
    """The client raises where the status is not 2xx (``is_server_ready``, inference_client.py)."""
    with pytest.raises(Failure) as caught:
        KServe(kserve, server_away).method(transport, method)
    assert caught.value.status == "503"


# Health


@pytest.mark.parametrize("transport", ["v1", "v2 json", "grpc raw"])
@pytest.mark.parametrize("token", ["", "wrong"])
def test_liveness_and_a_models_readiness_need_no_token(
    client: KServe, transport: str, token: str
) -> None:
    assert client.method(transport, "is_server_live", token=token) is True
    assert client.method(transport, "is_model_ready", COLOR_MODEL, token=token) is True


@pytest.mark.parametrize("transport", ["v2 json", "grpc raw"])
def test_readiness_needs_no_token(client: KServe, transport: str) -> None:
    assert client.method(transport, "is_server_ready", token="") is True


def test_v1_has_no_readiness_of_the_server(client: KServe) -> None:
    with pytest.raises(Failure) as caught:
        client.method("v1", "is_server_ready")
    assert caught.value.kind == "UnsupportedProtocol"


def test_a_model_that_is_not_there_is_not_ready_in_v2(client: KServe) -> None:
    assert client.method("v2 json", "is_model_ready", "nope") is False


@pytest.mark.parametrize(("transport", "status"), [("v1", "404"), ("grpc raw", "NOT_FOUND")])
def test_a_model_that_is_not_there_is_an_error(client: KServe, transport: str, status: str) -> None:
    with pytest.raises(Failure, match="no model 'nope' is served") as caught:
        client.method(transport, "is_model_ready", "nope")
    assert caught.value.status == status


# Many and large


@each_of_v2
def test_64_at_once_get_their_own_answers(client: KServe, transport: str) -> None:
    asked = [[photos(numbered_photo(number)), *options(outputs="map")] for number in range(64)]
    found = client.together(transport, *asked)
    assert [one["image"]["width"] for one in found] == [300 + number for number in range(64)]
    assert labels(found) == [LABELS[number % len(LABELS)] for number in range(64)]


@pytest.fixture(scope="module")
def large_photo() -> bytes:
    """A photo of 12 megapixels."""
    return large_jpeg()


LARGE = {"size": "original", "image_format": "png", "outputs": "heatmap,overlay"}


def assert_large(found: dict[str, Any]) -> None:
    """The pictures of a reply are those of the large photo."""
    (explanation,) = found["explanations"]
    for name in ("heatmap", "overlay"):
        assert contract.decoded(explanation[name]).shape == (3000, 4000, 3)
    assert len(explanation["overlay"]["b64"]) > 8_000_000


@each_of_v2
def test_a_reply_of_12_megapixels(client: KServe, transport: str, large_photo: bytes) -> None:
    (found,) = client.outcomes(transport, photos(large_photo), *options(**LARGE))
    assert_large(found)


def test_a_reply_of_12_megapixels_in_v1(client: KServe, large_photo: bytes) -> None:
    body = {"instances": [instance(large_photo)], "parameters": LARGE}
    (found,) = contract.outcomes(client.v1("explain", body), "v1")
    assert_large(found)


# TLS


@each_of_v2
def test_over_tls_and_through_the_edge(
    kserve: ClientProcess, over_tls: OpenInferenceServer, transport: str
) -> None:
    client = KServe(kserve, over_tls)
    assert labels(client.outcomes(transport, photos(BLUE))) == ["blue"]
    assert client.method(transport, "is_model_ready", COLOR_MODEL) is True
    for name in ("not a photo", "an unknown model", "a request too large"):
        refused = REFUSALS[name]
        failure = client.refusal(transport, *refused.inputs, **refused.more)
        assert (failure.status.removeprefix("StatusCode."), refused.message in failure.message) == (
            refused.http if transport.startswith("v2") else refused.grpc,
            True,
        )
    failure = client.refusal(transport, photos(BLUE), token="wrong")
    assert failure.status in ("401", "UNAUTHENTICATED")


def test_v1_over_tls_and_through_the_edge(
    kserve: ClientProcess, over_tls: OpenInferenceServer
) -> None:
    client = KServe(kserve, over_tls)
    reply = client.v1("explain", {"instances": [instance(BLUE)]})
    assert labels(contract.outcomes(reply, "v1")) == ["blue"]
