"""An Open Inference front in front of a server, and calls of it from the project's own stubs."""

from __future__ import annotations

import json
import os
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.rpc import error_details_pb2, status_pb2

from camserve_cli.open_inference import open_inference_pb2 as pb
from devtools.ports import free_ports
from tests.support.fault_server import wait_until
from tests.support.scripts import COLOR_MODEL

SERVICE = "/inference.GRPCInferenceService/"


@dataclass(frozen=True)
class Front:
    """A running front.

    Attributes:
        http: a client of it, with a token.
        address: of its gRPC service.
        token: that the server accepts.
        authority: what its gRPC clients trust; None where it speaks no TLS.
        pid: of its process; 0 where another has started it.
    """

    http: httpx.Client
    address: str
    token: str
    authority: Path | None = None
    pid: int = 0

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What authorizes a gRPC call."""
        return [("authorization", f"Bearer {self.token}")]

    def call(
        self,
        name: str,
        message: Any,
        *,
        metadata: Sequence[tuple[str, str]] | None = None,
        timeout: float = 60,
        channel: grpc.Channel | None = None,
    ) -> Any:
        """A call of the Open Inference service; its reply.

        Args:
            message: of the call's type, or the bytes to send.
        """
        as_bytes = message if isinstance(message, bytes) else message.SerializeToString()
        reply_type = getattr(pb, f"{name}Response")
        used = channel or self.channel()
        try:
            reply = used.unary_unary(SERVICE + name)(
                as_bytes,
                metadata=self.metadata if metadata is None else metadata,
                timeout=timeout,
            )
        finally:
            if channel is None:
                used.close()
        return reply_type.FromString(reply)

    def channel(self) -> grpc.Channel:
        """A new connection, whose own limits are none."""
        if self.authority is None:
            return grpc.insecure_channel(self.address, LARGE_MESSAGES)
        credentials = grpc.ssl_channel_credentials(self.authority.read_bytes())
        return grpc.secure_channel(self.address, credentials, LARGE_MESSAGES)

    def refusal(self, name: str, message: Any, **options: Any) -> tuple[str, str]:
        """The gRPC status and the code of a call that fails."""
        try:
            self.call(name, message, **options)
        except grpc.RpcError as failure:
            return failure.code().name, code_of(failure)
        raise AssertionError("it was answered")


#: Options of a channel: the front's own limits are what is tested.
LARGE_MESSAGES = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
]


def code_of(failure: grpc.RpcError) -> str:
    """The code in the details of a gRPC error; empty where it has none."""
    trailers = dict(failure.trailing_metadata() or ())
    info = error_details_pb2.ErrorInfo()
    for packed in status_pb2.Status.FromString(
        trailers.get("grpc-status-details-bin", b"")
    ).details:
        packed.Unpack(info)
    return str(info.reason) if info.domain == "camserve" else ""


def raw_bytes(*elements: bytes) -> bytes:
    """The elements of a BYTES tensor, raw."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def raw_request(*photos: bytes, model: str = COLOR_MODEL, **more: Any) -> pb.ModelInferRequest:
    """A request with raw contents."""
    request = pb.ModelInferRequest(
        model_name=model, raw_input_contents=[raw_bytes(*photos)], **more
    )
    request.inputs.add(name="image", datatype="BYTES", shape=[len(photos)])
    return request


def binary_body(
    *photos: bytes, parameters: Mapping[str, Any] | None = None
) -> tuple[bytes, dict[str, str]]:
    """A body of KServe v2 with binary tensors, and its headers."""
    elements = raw_bytes(*photos)
    image = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(photos)],
        "parameters": {"binary_data_size": len(elements)},
    }
    head = json.dumps({"inputs": [image], "parameters": dict(parameters or {})}).encode()
    headers = {
        "Inference-Header-Content-Length": str(len(head)),
        "Content-Type": "application/octet-stream",
    }
    return head + elements, headers


@contextmanager
def front_before(
    environment: Mapping[str, str], token: str, folder: Path, **options: object
) -> Iterator[Front]:
    """A front of its own before a running server.

    Args:
        environment: the variables of the server.
        folder: for its log.
        options: of ``python -m camserve_cli.open_inference``, as ``max_active=1``.
    """
    http, rpc = (f"127.0.0.1:{port}" for port in free_ports(2))
    chosen: dict[str, object] = {
        "inference": f"http://127.0.0.1:{environment['INFERENCE_PORT']}",
        "management": f"http://127.0.0.1:{environment['MANAGEMENT_PORT']}",
        "tokens": environment["RUN_DIR"],
        "http": http,
        "grpc": rpc,
        "log": folder / "front.log",
        **options,
    }
    process = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "camserve_cli.open_inference"),
            *(f"--{name.replace('_', '-')}={value}" for name, value in chosen.items()),
        ],
        env=dict(os.environ),
    )
    try:
        with connected(f"http://{http}", rpc, token) as front:
            wait_until(lambda: _answers(front), 30, "the front answers")
            yield replace(front, pid=process.pid)
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0


@contextmanager
def connected(
    base: str, address: str, token: str, authority: Path | None = None
) -> Iterator[Front]:
    """Clients of a running front.

    Args:
        authority: what they trust, where it speaks TLS.
    """
    bearer = {"Authorization": f"Bearer {token}"}
    trust = ssl.create_default_context(cafile=authority) if authority else True
    with httpx.Client(base_url=base, headers=bearer, timeout=60, verify=trust) as http:
        yield Front(http, address, token, authority)


def _answers(front: Front) -> bool:
    try:
        return front.http.get("/v2/health/live").status_code == 200
    except httpx.TransportError:
        return False
