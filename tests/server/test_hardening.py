"""What config.properties closes, asked of a real server."""

from __future__ import annotations

import json

import grpc
import httpx
import inference_pb2
import psutil
import pytest

from tests.support import color_resnet
from tests.support.contract import inputs_of
from tests.support.scripts import COLOR_MODEL, run_script
from tests.support.server_client import Client, infer_request

PHOTO = color_resnet.png(color_resnet.photo(("cyan", (160, 120), 60)))


def test_nothing_listens_beyond_loopback(server: Client) -> None:
    state = json.loads((server.run_dir / "server.json").read_text())
    listening = {
        connection.laddr
        for connection in psutil.Process(state["pid"]).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    ports = {int(port) for port in server.torchserve_ports.values()}
    assert {address.port for address in listening} == ports


@pytest.mark.parametrize("metadata", [[], [("authorization", "Bearer wrong")]])
def test_grpc_wants_a_token(server: Client, metadata: list[tuple[str, str]]) -> None:
    request = inference_pb2.PredictionsRequest(model_name=COLOR_MODEL, input={"data": PHOTO})
    with pytest.raises(grpc.RpcError) as refusal:
        server.grpc.Predictions(request, metadata=metadata, timeout=10)
    assert refusal.value.code() == grpc.StatusCode.PERMISSION_DENIED
    infer = infer_request(COLOR_MODEL, inputs_of([PHOTO]))
    with pytest.raises(grpc.RpcError) as refusal:
        server.open_inference.ModelInfer(infer, metadata=metadata, timeout=10)
    assert refusal.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_the_description_wants_a_token_for_management(server: Client) -> None:
    url = f"http://127.0.0.1:{server.ports['MANAGEMENT_PORT']}/models/{COLOR_MODEL}?customized=true"
    for token in ("wrong", server.token):
        response = httpx.get(url, headers={"Authorization": f"Bearer {token}"})
        assert response.status_code == 400
        assert "weights" not in response.text


def test_models_cannot_be_registered_or_deleted(server: Client) -> None:
    management = f"http://127.0.0.1:{server.ports['MANAGEMENT_PORT']}"
    token = run_script("serve.sh", "token", "management", **server.ports).strip()
    bearer = {"Authorization": f"Bearer {token}"}
    url = {"url": "file:///etc/passwd"}
    assert httpx.post(f"{management}/models", params=url, headers=bearer).status_code >= 400
    assert httpx.delete(f"{management}/models/{COLOR_MODEL}", headers=bearer).status_code >= 400
    assert server.predict(COLOR_MODEL, data=PHOTO)["predictions"][0]["label"] == "cyan"


def test_a_body_over_the_limit_is_refused(server: Client) -> None:
    deaths = server.deaths()
    large = bytes(32_000_000)
    for path in (f"/predictions/{COLOR_MODEL}", f"/v2/models/{COLOR_MODEL}/infer"):
        assert server.http.post(path, content=large).status_code == 413
    with pytest.raises(grpc.RpcError):
        server.infer(infer_request(COLOR_MODEL, inputs_of([large])))
    assert server.predict(COLOR_MODEL, data=PHOTO)["predictions"][0]["label"] == "cyan"
    assert server.deaths() == deaths
