"""What a call can end in, other than a reply."""

from __future__ import annotations


class CamserveError(Exception):
    """A call that got no reply; all that this package raises of its own is one of these.

    Attributes:
        code: what happened, in a word for programs.
        message: what happened, in words for people.
    """

    code: str

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RefusedError(CamserveError):
    """The server refused the request, or failed at it; the same request would fail again.

    Attributes:
        code: the handler's word for it (``unknown_class``, ``unsupported_format``, ..), the name of
            TorchServe's exception where the request never reached the handler
            (``ModelNotFoundException``), or where something else answered the status itself:
            ``http_502``, ``grpc_unimplemented``.
        status: the HTTP status. Over gRPC, which has none, that of the same failure over HTTP.
        message: the server's words.
    """

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(message)
        # What pickle makes it from again, on its way out of a worker process.
        self.args = (code, status, message)
        self.code = code
        self.status = status

    def __str__(self) -> str:
        return f"{self.message} ({self.code}, {self.status})"


class TokenRefusedError(RefusedError):
    """The token is wrong or expired, or there is none; a callable was asked for another."""


class UnavailableError(CamserveError):
    """The server cannot be reached, is too busy, or lost its worker, and stayed so.

    Attributes:
        retry_after: the seconds after which the server wanted to be asked again, where it said so.
    """

    code = "unavailable"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TimedOutError(UnavailableError):
    """No answer within the timeout. It is not repeated: the server may be at work on it still."""

    code = "timed_out"


class ReplyError(CamserveError):
    """The server's answer is not as agreed; the message names the place in it."""

    code = "bad_reply"
