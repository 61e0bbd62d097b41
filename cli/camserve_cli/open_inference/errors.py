"""The errors that a caller of the front sees, over HTTP and over gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import grpc
import orjson
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

#: Every code that the front uses by itself, and its HTTP status. A host's own codes pass through.
HTTP_STATUS: Final[dict[str, int]] = {
    "invalid_request": 400,
    "unauthorized": 401,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "request_too_large": 413,
    "json_too_large": 413,
    "expectation_failed": 417,
    "internal_error": 500,
    "bad_gateway": 502,
    "unavailable": 503,
    "queue_full": 503,
    "timed_out": 504,
    "out_of_memory": 507,
}

_GRPC_STATUS_BY_HTTP: Final = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
#: The codes for which gRPC has a better status than that of their HTTP status.
_GRPC_STATUS_BY_CODE: Final = {
    "request_too_large": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "queue_full": grpc.StatusCode.RESOURCE_EXHAUSTED,
}
#: Of google.rpc.ErrorInfo, which names the code in a gRPC error.
ERROR_DOMAIN: Final = "camserve"
_CHALLENGE: Final = 'Bearer realm="camserve"'


class FrontError(Exception):
    """A request is refused, or failed.

    Attributes:
        code: one of :data:`HTTP_STATUS`, or the host's.
        message: what was wrong and what is accepted, for the caller.
        status: the HTTP status.
        headers: of the HTTP reply.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = HTTP_STATUS[code] if status is None else status
        self.headers = dict(headers or {})

    @property
    def detail(self) -> dict[str, Any]:
        """The object that every error of this project has."""
        return {"code": self.code, "status": self.status, "message": self.message}

    def to_json(self, *, as_text: bool) -> dict[str, Any]:
        """The body of the HTTP reply.

        Args:
            as_text: ``error`` is the message, as KServe v2 has it, and the object is beside it.
        """
        if as_text:
            return {"error": self.message, "error_detail": self.detail}
        return {"error": self.detail}

    @property
    def grpc_status(self) -> grpc.StatusCode:
        """The status of the gRPC call."""
        if self.code in _GRPC_STATUS_BY_CODE:
            return _GRPC_STATUS_BY_CODE[self.code]
        is_callers = 400 <= self.status < 500
        default = grpc.StatusCode.INVALID_ARGUMENT if is_callers else grpc.StatusCode.INTERNAL
        return _GRPC_STATUS_BY_HTTP.get(self.status, default)

    def grpc_details(self) -> bytes:
        """The trailer ``grpc-status-details-bin``: google.rpc.Status with the code as ErrorInfo."""
        packed = any_pb2.Any()
        packed.Pack(
            error_details_pb2.ErrorInfo(
                reason=self.code, domain=ERROR_DOMAIN, metadata={"status": str(self.status)}
            )
        )
        number, _ = self.grpc_status.value
        status = status_pb2.Status(code=number, message=self.message, details=[packed])
        return bytes(status.SerializeToString())


def unauthorized(*, has_token: bool) -> FrontError:
    """The token is missing, or is none of the host's.

    Args:
        has_token: whether the caller sent one (RFC 6750, 3).
    """
    challenge = _CHALLENGE + (', error="invalid_token"' if has_token else "")
    return FrontError(
        "unauthorized",
        "the token is missing, wrong or expired; accepted: Authorization: Bearer TOKEN",
        headers={"WWW-Authenticate": challenge},
    )


def unavailable(why: str) -> FrontError:
    """The host cannot be reached, or the front is stopping."""
    return FrontError("unavailable", f"{why}; try again later", headers={"Retry-After": "1"})


def error_of_reply(status: int, body: bytes | bytearray) -> FrontError:
    """The error that the handler's reply tells.

    Args:
        status: the reply's, not 200.
        body: JSON: an error, or KServe v2's tensor ``error`` where every photo failed.
    """
    try:
        detail = _find_detail(orjson.loads(body))
        return FrontError(str(detail["code"]), str(detail["message"]), status=status)
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return FrontError("internal_error", "the model failed", status=status)


def _find_detail(told: Any) -> Any:
    """The object of an error with its code and message, wherever it stands."""
    for key in ("error_detail", "error"):
        if isinstance(told.get(key), dict):
            return told[key]
    (tensor,) = [output for output in told["outputs"] if output["name"] == "error"]
    return orjson.loads(next(element for element in tensor["data"] if element))
