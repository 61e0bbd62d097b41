"""The errors of a call.

Every error that this package defines is in this tree:

    CamserveError
    ├── StatusError
    │   ├── RequestRejectedError
    │   │   └── AuthenticationError
    │   └── ServerFailedError
    ├── UnavailableError
    │   └── RequestTimeoutError
    ├── CertificateError
    └── InvalidReplyError

Wrong arguments raise ``ValueError`` or ``TypeError``, and a photo that cannot be read ``OSError``.
``docs/errors.md`` describes when each error is raised, and the server's codes.
"""

from __future__ import annotations


class CamserveError(Exception):
    """The base class of all errors that a call raises when it gets no valid reply.

    Attributes:
        code: a short identifier for programs, such as ``unavailable``.
        message: a description for people.
    """

    code: str

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class StatusError(CamserveError):
    """The server answered with an error status, which is not worth a retry.

    Attributes:
        code: the handler's error code (``unknown_class``, ``unsupported_format``, ...); the name
            of TorchServe's exception where the request did not reach the handler
            (``ModelNotFoundException``); ``http_502`` or ``grpc_unimplemented`` where the answer
            names neither, as a proxy's does.
        status: the HTTP status. gRPC has none: it is the status of the same failure over HTTP.
        message: the server's message.

    Example:
        >>> with Client("http://127.0.0.1:8080", "resnet50") as client:
        ...     try:
        ...         client.explain("cat.jpg", target="pink")
        ...     except StatusError as error:
        ...         print(error.status, error.code)
        400 unknown_class
    """

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(message)
        # pickle calls the constructor with these when the error leaves a worker process.
        self.args = (code, status, message)
        self.code = code
        self.status = status

    def __str__(self) -> str:
        return f"{self.message} ({self.code}, {self.status})"


class RequestRejectedError(StatusError):
    """The server rejected the request (4xx): change the request, then send it again.

    Other statuses under 500 are included, for example a redirect: there, change the address.
    """


class AuthenticationError(RequestRejectedError):
    """The token is missing, wrong or expired.

    If ``token`` is a callable, it was called for a new token first, which was rejected too.
    """


class ServerFailedError(StatusError):
    """The server failed on the request (5xx): the cause is on the server's side."""


class UnavailableError(CamserveError):
    """The server cannot be reached, is overloaded, or lost its worker; retries did not help.

    Attributes:
        retry_after: the number of seconds after which the server asks for a retry, if it gave one.
    """

    code = "unavailable"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CertificateError(CamserveError):
    """The server's certificate is not one that the client trusts; no request was sent."""

    code = "untrusted_certificate"


class RequestTimeoutError(UnavailableError):
    """The server did not answer within the timeout.

    The call is not retried, because the server may still be working on the request.
    """

    code = "timed_out"


class InvalidReplyError(CamserveError):
    """The server's reply does not match the schema; the message names the place in the reply."""

    code = "bad_reply"
