"""inference.GRPCInferenceService, and the gRPC server with all services, for grpc.aio.

ModelInfer takes its message as raw bytes and as a stream of one, which is the same on the wire: the
front decides whether it accepts a request before its message is read, and tells a message that is
none from a failure of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection

from camserve_cli.open_inference import messages
from camserve_cli.open_inference import open_inference_pb2 as pb
from camserve_cli.open_inference.errors import FrontError, error_of_reply
from camserve_cli.open_inference.grpc_calls import SmallCalls, abort, abort_unforeseen
from camserve_cli.open_inference.grpc_health import HEALTH, HealthServicer
from camserve_cli.open_inference.host import HostReply, HostRequest
from camserve_cli.open_inference.limits import Limits
from camserve_cli.open_inference.service import (
    EXTENSIONS,
    InferenceService,
    normalize_authorization,
    server_version,
)

SERVICE: Final = "inference.GRPCInferenceService"
#: Messages of more bytes are translated in a thread, so that others are served meanwhile.
_LARGE: Final = 1_000_000


class InferenceServicer:
    """The calls of Open Inference.

    Args:
        service: answers them.
        limits: of messages and times.
        small_calls: reads the messages of all calls but ModelInfer.
    """

    def __init__(self, service: InferenceService, limits: Limits, small_calls: SmallCalls) -> None:
        self._service = service
        self._limits = limits
        self._small_calls = small_calls

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server registers."""
        unary = {
            "ServerLive": (self._server_live, pb.ServerLiveRequest),
            "ServerReady": (self._server_ready, pb.ServerReadyRequest),
            "ModelReady": (self._model_ready, pb.ModelReadyRequest),
            "ServerMetadata": (self._server_metadata, pb.ServerMetadataRequest),
            "ModelMetadata": (self._model_metadata, pb.ModelMetadataRequest),
        }
        calls = {
            name: self._small_calls.handler(method, request)
            for name, (method, request) in unary.items()
        }
        calls["ModelInfer"] = grpc.stream_stream_rpc_method_handler(self._model_infer)
        return grpc.method_handlers_generic_handler(SERVICE, calls)

    async def _server_live(self, request: pb.ServerLiveRequest, context: Any) -> Message:
        return pb.ServerLiveResponse(live=await self._service.is_live())

    async def _server_ready(self, request: pb.ServerReadyRequest, context: Any) -> Message:
        return pb.ServerReadyResponse(ready=await self._service.is_ready())

    async def _model_ready(self, request: pb.ModelReadyRequest, context: Any) -> Message:
        ready = await self._service.is_model_ready(request.name, request.version)
        return pb.ModelReadyResponse(ready=ready)

    async def _server_metadata(self, request: pb.ServerMetadataRequest, context: Any) -> Message:
        await self._service.authorize(_authorization(context))
        return pb.ServerMetadataResponse(
            name="camserve", version=server_version(), extensions=EXTENSIONS
        )

    async def _model_metadata(self, request: pb.ModelMetadataRequest, context: Any) -> Message:
        await self._service.authorize(_authorization(context))
        told = await self._service.model_metadata(request.name, request.version)
        inputs, outputs = (
            [
                pb.ModelMetadataResponse.TensorMetadata(
                    name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
                )
                for tensor in tensors
            ]
            for tensors in (told.inputs, told.outputs)
        )
        return pb.ModelMetadataResponse(
            name=told.name,
            versions=told.versions,
            platform=told.platform,
            inputs=inputs,
            outputs=outputs,
        )

    async def _model_infer(self, request_iterator: AsyncIterator[bytes], context: Any) -> None:
        """Read one message, and write one."""
        try:
            authorization = _authorization(context)
            await self._service.authorize(authorization)
            # How large the message is, gRPC does not say before it is read.
            async with self._service.admission.admit(self._limits.max_request) as reservation:
                message = await self._read(context)
                reservation.shrink(len(message))
                translated = await _in_thread_if_large(
                    len(message), messages.translate_request, message
                )
                del message
                reply = await self._service.infer(
                    HostRequest(
                        translated.model,
                        translated.version,
                        translated.body,
                        {
                            "Content-Type": "application/octet-stream",
                            "Inference-Header-Content-Length": str(translated.json_length),
                        },
                        authorization=authorization,
                        timeout=translated.timeout,
                    ),
                    reservation,
                )
                if reply.status != 200:
                    raise error_of_reply(reply.status, reply.body)
                response = await _in_thread_if_large(
                    len(reply.body), _serialize_reply, reply, translated.is_raw
                )
                # Not read, the reply would hold its memory and its place.
                async with asyncio.timeout(self._limits.send_seconds):
                    await context.write(response)
        except FrontError as error:
            await abort(context, error)
        except TimeoutError:
            await abort(context, FrontError("timed_out", "the reply was not read in time"))
        except Exception as failure:
            await abort_unforeseen(context, failure)

    async def _read(self, context: Any) -> bytes:
        """The message of a call.

        Raises:
            FrontError: ``request_timeout``; ``invalid_request``: there is none.
        """
        try:
            async with asyncio.timeout(self._limits.receive_seconds):
                message = await context.read()
        except TimeoutError:
            raise FrontError(
                "request_timeout",
                f"the message did not arrive in {self._limits.receive_seconds:g} s",
            ) from None
        if not isinstance(message, bytes):
            raise FrontError("invalid_request", "the call has no message")
        return message


def create_server(service: InferenceService, limits: Limits) -> grpc.aio.Server:
    """A server with all services and no address yet."""
    server = grpc.aio.server(
        maximum_concurrent_rpcs=limits.max_calls,
        options=[
            ("grpc.max_receive_message_length", limits.max_request),
            ("grpc.max_send_message_length", limits.max_reply),
            ("grpc.max_metadata_size", limits.max_headers),
            ("grpc.absolute_max_metadata_size", 2 * limits.max_headers),
            ("grpc.max_concurrent_streams", limits.max_streams),
            ("grpc.max_connection_idle_ms", 300_000),
            # It ends connections whose other side does not read, too.
            ("grpc.max_connection_age_ms", 3_600_000),
            ("grpc.max_connection_age_grace_ms", 180_000),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            # Another process that listens there is an error.
            ("grpc.so_reuseport", 0),
        ],
    )
    small_calls = SmallCalls(limits)
    inference = InferenceServicer(service, limits, small_calls)
    health = HealthServicer(service, SERVICE, small_calls)
    server.add_generic_rpc_handlers((inference.handler(), health.handler()))
    reflection.enable_server_reflection((SERVICE, HEALTH, reflection.SERVICE_NAME), server)
    return server


def _authorization(context: Any) -> str:
    """The caller's token, with the scheme as hosts expect it; empty where there is none."""
    metadata = dict(context.invocation_metadata() or ())
    value = metadata.get("authorization", "")
    return normalize_authorization(value if isinstance(value, str) else "")


def _serialize_reply(reply: HostReply, is_raw: bool) -> bytes:
    return bytes(messages.translate_reply(reply, is_raw=is_raw).SerializeToString())


async def _in_thread_if_large(size: int, function: Callable[..., Any], *arguments: Any) -> Any:
    if size > _LARGE:
        return await asyncio.to_thread(function, *arguments)
    return function(*arguments)
