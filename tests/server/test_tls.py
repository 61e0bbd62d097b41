"""A server that speaks TLS on every address, and clients that verify it."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import inference_pb2
import inference_pb2_grpc
import management_pb2
import management_pb2_grpc
import pytest

from camserve_cli.serving.certificate_authority import issue
from camserve_cli.serving.certificates import PinnedHostContext
from camserve_client import (
    AsyncClient,
    AsyncGrpcClient,
    CertificateError,
    Client,
    GrpcClient,
    UnavailableError,
)
from devtools.ports import free_server_ports
from tests.support import color_resnet
from tests.support.scripts import CAMSERVE, COLOR_MODEL, camserve, run, run_script

PHOTO = color_resnet.png(color_resnet.photo(("cyan", (160, 120), 60)))
#: No address of loopback: what a certificate for the public names.
HOST = "cam.example"


@dataclass(frozen=True)
class Secured:
    """A server with TLS: its variables, what it said at its start, tokens, and its authority."""

    environment: dict[str, str]
    said: str
    token: str
    management_token: str
    authority: Path

    def address(self, port: str) -> str:
        return f"127.0.0.1:{self.environment[port]}"

    @property
    def metadata(self) -> list[tuple[str, str]]:
        return [("protocol", "gRPC"), ("authorization", f"Bearer {self.token}")]

    @property
    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.authority.read_bytes())


@pytest.fixture(scope="module")
def secured(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    # As somebody's own certificate would be; the command must still verify it over loopback.
    made = issue(folder, [HOST, "*.cam.example"], 1)
    environment = {"RUN_DIR": str(tmp_path_factory.mktemp("run")), **free_server_ports()}
    options = ("--store", store, "--models", COLOR_MODEL, "--tls", folder)
    said = run_script("serve.sh", "start", *options, **environment)
    try:
        token, management = (
            run_script("serve.sh", "token", kind, **environment).strip()
            for kind in ("inference", "management")
        )
        yield Secured(environment, said, token, management, made.authority)
    finally:
        run_script("serve.sh", "stop", **environment)


def test_the_probe_verifies_the_server(secured: Secured) -> None:
    def probe(*options: str | Path) -> str:
        url = f"https://{secured.address('INFERENCE_PORT')}"
        token = {"CAMSERVE_TOKEN": secured.token}
        done = run(CAMSERVE, "ready", "--model", COLOR_MODEL, "--url", url, *options, **token)
        assert done.returncode == 1
        return done.stdout

    assert "unable to get local issuer certificate" in probe()
    # The authority is right, and the name that it vouches for another.
    assert "not valid for '127.0.0.1'" in probe("--ca", secured.authority)
    assert "--ca" in probe("--ca", secured.authority.with_name("none.pem"))


def named(authority: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority)


def ask(secured: Secured, port: str, path: str, token: str, **more: Any) -> httpx.Response:
    """A request whose certificate must be HOST's."""
    with httpx.Client(verify=named(secured.authority), timeout=60) as http:
        request = http.build_request(
            **{"method": "GET", **more},
            url=f"https://{secured.address(port)}{path}",
            headers={"Authorization": f"Bearer {token}"},
            extensions={"sni_hostname": HOST},
        )
        return http.send(request)


def test_each_http_address_answers_a_client_that_verifies_it(secured: Secured) -> None:
    path = f"/predictions/{COLOR_MODEL}"
    reply = ask(secured, "INFERENCE_PORT", path, secured.token, method="POST", content=PHOTO)
    assert reply.json()["predictions"][0]["label"] == "cyan"
    assert reply.json()["explanations"][0]["evidence"]
    description = ask(
        secured, "MANAGEMENT_PORT", f"/models/{COLOR_MODEL}", secured.management_token
    )
    assert description.json()[0]["workers"][0]["status"] == "READY"
    metrics = ask(secured, "METRICS_PORT", "/metrics", secured.token).text
    assert "ts_inference_requests_total" in metrics


@pytest.mark.parametrize("port", ["INFERENCE_PORT", "MANAGEMENT_PORT", "METRICS_PORT"])
def test_http_without_the_authority_or_without_tls_gets_nothing(
    secured: Secured, port: str
) -> None:
    address = secured.address(port)
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"https://{address}/ping", verify=named(None))
    # The authority is right, the name is not.
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"https://{address}/ping", verify=named(secured.authority))
    plain = httpx.post(
        f"http://{address}/predictions/{COLOR_MODEL}",
        content=PHOTO,
        headers={"Authorization": f"Bearer {secured.token}"},
    )
    assert plain.status_code == 403
    assert "only accepts HTTPS" in plain.text


def test_tls_before_1_2_is_refused(secured: Secured) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.load_verify_locations(secured.authority)
    with pytest.raises(httpx.ConnectError, match=r"(?i)protocol.version"):
        httpx.get(f"https://{secured.address('INFERENCE_PORT')}/ping", verify=old)


def test_both_grpc_addresses_answer_a_client_that_verifies_them(secured: Secured) -> None:
    options = [("grpc.ssl_target_name_override", HOST)]
    address = secured.address("GRPC_INFERENCE_PORT")
    with grpc.secure_channel(address, secured.credentials, options) as channel:
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        request = inference_pb2.PredictionsRequest(model_name=COLOR_MODEL, input={"data": PHOTO})
        reply = json.loads(
            stub.Predictions(request, metadata=secured.metadata, timeout=60).prediction
        )
    assert reply["predictions"][0]["label"] == "cyan"
    address = secured.address("GRPC_MANAGEMENT_PORT")
    with grpc.secure_channel(address, secured.credentials, options) as channel:
        manage = management_pb2_grpc.ManagementAPIsServiceStub(channel)
        metadata = [
            ("protocol", "gRPC"),
            ("authorization", f"Bearer {secured.management_token}"),
        ]
        described = manage.DescribeModel(
            management_pb2.DescribeModelRequest(model_name=COLOR_MODEL),
            metadata=metadata,
            timeout=60,
        )
    assert json.loads(described.msg)[0]["modelName"] == COLOR_MODEL


@pytest.mark.parametrize("how", ["insecure", "other authority", "other name"])
def test_grpc_without_what_verifies_it_gets_nothing(secured: Secured, how: str) -> None:
    address = secured.address("GRPC_INFERENCE_PORT")
    channels = {
        "insecure": lambda: grpc.insecure_channel(address),
        "other authority": lambda: grpc.secure_channel(
            address, grpc.ssl_channel_credentials(), [("grpc.ssl_target_name_override", HOST)]
        ),
        "other name": lambda: grpc.secure_channel(address, secured.credentials),
    }
    with channels[how]() as channel, pytest.raises(grpc.RpcError) as refusal:
        inference_pb2_grpc.InferenceAPIsServiceStub(channel).Predictions(
            inference_pb2.PredictionsRequest(model_name=COLOR_MODEL, input={"data": PHOTO}),
            metadata=secured.metadata,
            timeout=60,
        )
    assert refusal.value.code() == grpc.StatusCode.UNAVAILABLE


def clients(secured: Secured, authority: bytes | None) -> dict[str, Any]:
    """The project's four clients, the HTTP ones by the name that the certificate has."""
    common: dict[str, Any] = {
        "model": COLOR_MODEL,
        "token": secured.token,
        "retries": 0,
        "timeout": 60,
    }
    trust = PinnedHostContext.of(str(secured.authority), HOST) if authority else True
    over_http: dict[str, Any] = {
        "address": f"https://{secured.address('INFERENCE_PORT')}",
        "verify": trust,
    }
    over_grpc: dict[str, Any] = {
        "address": secured.address("GRPC_INFERENCE_PORT"),
        "credentials": grpc.ssl_channel_credentials(authority),
        "server_name": HOST,
    }
    return {
        "http": lambda: Client(**common, **over_http),
        "http async": lambda: AsyncClient(**common, **over_http),
        "grpc": lambda: GrpcClient(**common, **over_grpc),
        "grpc async": lambda: AsyncGrpcClient(**common, **over_grpc),
    }


async def explain(client: Any) -> Any:
    if isinstance(client, Client | GrpcClient):
        with client:
            return client.explain(PHOTO)
    async with client:
        return await client.explain(PHOTO)


@pytest.mark.parametrize("way", ["http", "http async", "grpc", "grpc async"])
def test_the_projects_clients_verify_the_server(secured: Secured, way: str) -> None:
    make = clients(secured, secured.authority.read_bytes())[way]
    reply = asyncio.run(explain(make()))
    assert reply.predictions[0].label == "cyan"
    make = clients(secured, None)[way]
    # gRPC does not say why it cannot connect.
    error = UnavailableError if way.startswith("grpc") else CertificateError
    with pytest.raises(error):
        asyncio.run(explain(make()))


def test_the_command_verifies_the_server(secured: Secured, tmp_path: Path) -> None:
    status = run_script("serve.sh", "status", **secured.environment)
    assert f"{COLOR_MODEL}: answers" in status
    (tmp_path / "photo.png").write_bytes(PHOTO)
    address = secured.address("GRPC_INFERENCE_PORT")
    for more in ((), ("--grpc", address)):
        options = (tmp_path / "photo.png", "--out", tmp_path / "out", *more)
        said = camserve("explain", *options, **secured.environment)
        assert "1 of 1 photos" in said
    # Whoever has another authority is not answered.
    other = issue(tmp_path / "other", [HOST], 1).authority
    options = (tmp_path / "photo.png", "--out", tmp_path / "out", "--ca", other)
    done = run(CAMSERVE, "explain", *options, **secured.environment)
    assert done.returncode == 1


def test_the_command_that_a_start_says_works(secured: Secured, tmp_path: Path) -> None:
    command = re.search(r"curl .*", secured.said)
    assert command is not None
    (tmp_path / "photo.png").write_bytes(PHOTO)
    said = command[0].replace("PHOTO.jpg", str(tmp_path / "photo.png"))
    done = run("bash", "-c", said, **secured.environment)
    assert '"cyan"' in done.stdout, done.stderr
