"""The four clients and a real server."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camserve_client import AuthenticationError, StatusError, UnavailableError
from devtools.ports import free_server_ports
from tests.support import color_resnet
from tests.support.scripts import COLOR_MODEL
from tests.support.server_client import Client
from tests.support.stub_server import CLIENT_KINDS, CLIENTS, explain

PIXELS = color_resnet.photo(("red", (100, 120), 50), ("blue", (230, 120), 30))
PHOTO = color_resnet.png(PIXELS)
each_client = pytest.mark.parametrize("client_kind", CLIENT_KINDS)


def place(server: Client, client_kind: str) -> dict[str, Any]:
    """The address, model and token, for a client of the package."""
    http, grpc = (server.ports[name] for name in ("INFERENCE_PORT", "GRPC_INFERENCE_PORT"))
    address = f"http://127.0.0.1:{http}" if client_kind.startswith("http") else f"127.0.0.1:{grpc}"
    return {"address": address, "model": COLOR_MODEL, "token": server.token}


def ask(
    server: Client, client_kind: str, *photos: Any, settings: Any = None, **options: Any
) -> list[Any]:
    waits: list[float] = []
    given = {**place(server, client_kind), **(settings or {})}
    replies = explain(client_kind, photos or (PHOTO,), waits, given, options)
    assert waits == []
    return replies


def test_all_four_get_the_same_reply(server: Client) -> None:
    options = {"target": "blue", "top_k": 2, "colormap": "bone", "outputs": ["heatmap", "overlay"]}
    replies = [ask(server, client_kind, **options)[0] for client_kind in CLIENT_KINDS]
    assert all(reply == replies[0] for reply in replies)
    assert all(reply.raw == replies[0].raw for reply in replies)
    reply = replies[0]
    assert [prediction.label for prediction in reply.predictions] == ["red", "magenta"]
    (explanation,) = reply.explanations
    assert (explanation.label, explanation.layer) == ("blue", "layer4.2")
    assert explanation.mask is None
    hot = explanation.heatmap.numpy().mean(axis=2)
    y, x = np.unravel_index(int(hot.argmax()), hot.shape)
    x0, y0, x1, y1 = reply.image.seen
    peak = x0 + (x + 0.5) * (x1 - x0) / 224, y0 + (y + 0.5) * (y1 - y0) / 224
    assert np.hypot(peak[0] - 230, peak[1] - 120) < 30
    assert explanation.overlay.numpy().shape == (224, 224, 3)


@each_client
def test_every_output(server: Client, client_kind: str) -> None:
    (reply,) = ask(
        server,
        client_kind,
        target=["red", "blue", "blue-red"],
        layer=["layer4.2", "layer3.5"],
        outputs=["mask", "map", "boxes"],
        size="original",
    )
    red, blue, blue_not_red = reply.explanations
    assert [one.label for one in reply.explanations] == ["red", "blue", "blue"]
    assert (blue_not_red.against.label, blue.against) == ("red", None)
    assert red.layer == ("layer4.2", "layer3.5")
    assert red.heatmap is None
    for explanation, (x, y) in ((red, (100, 120)), (blue, (230, 120))):
        mask, map = explanation.mask.numpy(), explanation.map.numpy()
        assert mask.shape == (240, 320)
        assert mask[y, x] > 128
        assert map.shape == (14, 14)
        assert map.max() == 1
        x0, y0, x1, y1 = explanation.boxes[0].box
        assert x0 < x < x1
        assert y0 < y < y1


@each_client
def test_predictions_alone(server: Client, client_kind: str) -> None:
    (reply,) = ask(server, client_kind, explain=False)
    assert reply.explanations == ()
    assert reply.predictions[0].label == "red"


@each_client
def test_each_form_of_a_photo(server: Client, client_kind: str) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    stream = BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG", exif=turned)
    image = Image.open(stream)
    replies = ask(
        server, client_kind, PHOTO, PIXELS, Image.fromarray(PIXELS), stream.getvalue(), image
    )
    assert replies[0] == replies[1] == replies[2]
    assert replies[3] == replies[4]
    assert replies[3].image.orientation == 6
    assert replies[3].predictions[0].label == "red"


@each_client
@pytest.mark.parametrize(
    ("settings", "photo", "options", "code", "status"),
    [
        ({}, PHOTO, {"target": "pink"}, "unknown_class", 400),
        ({}, PHOTO, {"tarject": "red"}, "unknown_option", 400),
        ({}, PHOTO, {"alpha": 2}, "invalid_option", 400),
        ({}, b"junk", {}, "unsupported_format", 415),
        ({"model": "nothing"}, PHOTO, {}, "ModelNotFoundException", 404),
        ({"version": "7.0"}, PHOTO, {}, "ModelVersionNotFoundException", 404),
    ],
)
def test_rejected_requests(
    server: Client,
    client_kind: str,
    settings: dict[str, Any],
    photo: bytes,
    options: dict[str, Any],
    code: str,
    status: int,
) -> None:
    with pytest.raises(StatusError) as error:
        ask(server, client_kind, photo, settings=settings, **options)
    assert (error.value.code, error.value.status) == (code, status)


@each_client
def test_a_photo_that_is_too_large(server: Client, client_kind: str) -> None:
    with pytest.raises(StatusError) as error:
        ask(server, client_kind, bytes(32_000_000))
    assert error.value.status == 413
    assert error.value.code in ("http_413", "grpc_cancelled")


@each_client
def test_a_rejected_token_is_renewed(server: Client, client_kind: str) -> None:
    given: list[str] = []

    def issue() -> str:
        given.append("stale" if not given else server.token)
        return given[-1]

    with pytest.raises(AuthenticationError):
        ask(server, client_kind, settings={"token": "stale"})
    waits: list[float] = []
    settings = {**place(server, client_kind), "token": issue}
    (reply,) = explain(client_kind, (PHOTO,), waits, settings, {"version": None})
    assert reply.predictions[0].label == "red"
    assert given == ["stale", server.token]


@each_client
def test_many_at_once(server: Client, client_kind: str) -> None:
    photos = [
        color_resnet.png(color_resnet.photo((name, (160, 120), 60))) for name in color_resnet.LABELS
    ]
    replies = ask(server, client_kind, *photos, explain=False)
    assert [reply.predictions[0].label for reply in replies] == color_resnet.LABELS


@each_client
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_loopback_is_called_past_proxies(
    server: Client, client_kind: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing listens there, and httpx alone knows no SOCKS.
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, proxy)
    (reply,) = ask(server, client_kind, PHOTO, explain=False)
    assert reply.predictions[0].label == "red"


@each_client
def test_nothing_listens(client_kind: str) -> None:
    port = free_server_ports()["INFERENCE_PORT"]
    address = f"http://127.0.0.1:{port}" if client_kind.startswith("http") else f"127.0.0.1:{port}"
    waits: list[float] = []
    with pytest.raises(UnavailableError, match="tried 3 times"):
        explain(client_kind, (PHOTO,), waits, {"address": address, "model": "x", "retries": 2}, {})
    assert len(waits) == 2


def test_a_client_works_without_a_with_statement(server: Client) -> None:
    for client_kind in ("http", "grpc"):
        client = CLIENTS[client_kind](**place(server, client_kind))
        assert client.predict(PHOTO, top_k=1).predictions[0].label == "red"
        client.close()
