"""Calls of one small message each way, and how calls end with an error.

Most of them need no token. So their messages are read as those of ModelInfer are, after the front
has accepted them, but they have places and memory of their own, and little time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from camserve_cli.open_inference.admission import Admission
from camserve_cli.open_inference.errors import FrontError
from camserve_cli.open_inference.limits import Limits

_logger = logging.getLogger(__name__)

#: How many messages are read at a time, and how many wait for that.
_MAX_READING: Final = 8
_MAX_WAITING: Final = 200
#: Seconds for a message to arrive, and its most bytes.
_READ_SECONDS: Final = 5.0
_MAX_BYTES: Final = 65_536

Request = TypeVar("Request", bound=Message)


class SmallCalls:
    """Reads and answers calls of one small message each way.

    Args:
        limits: of the server; gRPC reads a message up to the largest of any call.
    """

    def __init__(self, limits: Limits) -> None:
        self._largest = limits.max_request
        self._admission = Admission(_MAX_READING, _MAX_WAITING, _MAX_READING * self._largest)

    def handler(
        self, method: Callable[[Any, Any], Awaitable[Message]], request_type: type[Message]
    ) -> grpc.RpcMethodHandler:
        """What a server registers for a method, with errors as gRPC has them."""

        async def call(request_iterator: object, context: Any) -> None:
            try:
                reply = await method(await self.read(context, request_type), context)
                await context.write(reply.SerializeToString())
            except FrontError as error:
                await abort(context, error)
            except Exception as failure:
                await abort_unforeseen(context, failure)

        return grpc.stream_stream_rpc_method_handler(call)

    async def read(self, context: Any, request_type: type[Request]) -> Request:
        """The only message of a call.

        Raises:
            FrontError: ``invalid_request``: it is none of this type; ``request_timeout``,
                ``queue_full``.
        """
        async with self._admission.admit(self._largest):
            try:
                async with asyncio.timeout(_READ_SECONDS):
                    message = await context.read()
            except TimeoutError:
                raise FrontError(
                    "request_timeout", f"the message did not arrive in {_READ_SECONDS:g} s"
                ) from None
            if not isinstance(message, bytes) or len(message) > _MAX_BYTES:
                raise FrontError(
                    "invalid_request",
                    f"the call has no message, or one of more than {_MAX_BYTES} bytes; accepted: "
                    "one",
                )
            try:
                parsed: Request = request_type.FromString(message)
            except DecodeError:
                raise FrontError(
                    "invalid_request", "the message is not of this call's type"
                ) from None
            return parsed


async def abort(context: Any, error: FrontError) -> None:
    """End a call with an error.

    Raises:
        grpc.aio.AbortError: always.
    """
    context.set_trailing_metadata((("grpc-status-details-bin", error.grpc_details()),))
    await context.abort(error.grpc_status, error.message)


async def abort_unforeseen(context: Any, failure: Exception) -> None:
    """End a call that failed by a defect of the front, or whose caller has gone meanwhile.

    Raises:
        grpc.aio.AbortError: unless the caller has gone: then nothing can be told any more.
    """
    if isinstance(failure, grpc.aio.AbortError):
        raise failure
    if context.cancelled() or context.done():
        return
    # Its text may repeat what a caller sent.
    _logger.error("a call failed", exc_info=failure)
    await abort(context, FrontError("internal_error", "the server failed; its log says where"))
