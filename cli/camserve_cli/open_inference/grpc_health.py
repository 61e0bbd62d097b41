"""grpc.health.v1.Health, for grpc.aio."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from camserve_cli.open_inference.errors import FrontError
from camserve_cli.open_inference.grpc_calls import SmallCalls, abort, abort_unforeseen
from camserve_cli.open_inference.service import InferenceService

HEALTH: Final = "grpc.health.v1.Health"
#: Seconds between two looks at the health that somebody watches.
_WATCH_SECONDS: Final = 5.0
#: The most callers that watch. Each keeps one of the calls that a server has at a time.
_MAX_WATCHERS: Final = 20


class HealthServicer:
    """grpc.health.v1: whether the server, or this service, answers; as ServerReady says.

    Args:
        service: that is asked.
        name: of the gRPC service that it answers for.
        small_calls: reads the messages.
    """

    def __init__(self, service: InferenceService, name: str, small_calls: SmallCalls) -> None:
        self._service = service
        self._known = ("", name, HEALTH)
        self._small_calls = small_calls
        self._watchers = 0

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server registers."""
        return grpc.method_handlers_generic_handler(
            HEALTH,
            {
                "Check": self._small_calls.handler(self._check, health_pb2.HealthCheckRequest),
                "Watch": grpc.stream_stream_rpc_method_handler(self._watch),
            },
        )

    async def _check(self, request: health_pb2.HealthCheckRequest, context: Any) -> Message:
        if request.service not in self._known:
            raise FrontError("not_found", f"no service {request.service[:80]!r} here")
        return health_pb2.HealthCheckResponse(status=await self._status(request.service))

    async def _watch(self, request_iterator: object, context: Any) -> None:
        """Write the status, and each change of it."""
        if self._watchers >= _MAX_WATCHERS:
            busy = FrontError("queue_full", f"{_MAX_WATCHERS} callers watch already; use Check")
            await abort(context, busy)
        self._watchers += 1
        try:
            request = await self._small_calls.read(context, health_pb2.HealthCheckRequest)
            last = None
            while True:
                status = await self._status(request.service)
                if status != last:
                    reply = health_pb2.HealthCheckResponse(status=status)
                    await context.write(reply.SerializeToString())
                last = status
                await asyncio.sleep(_WATCH_SECONDS)
        except FrontError as error:
            await abort(context, error)
        except Exception as failure:
            await abort_unforeseen(context, failure)
        finally:
            self._watchers -= 1

    async def _status(self, service: str) -> int:
        states = health_pb2.HealthCheckResponse
        if service not in self._known:
            return int(states.SERVICE_UNKNOWN)
        ready = await self._service.is_ready()
        return int(states.SERVING if ready else states.NOT_SERVING)
