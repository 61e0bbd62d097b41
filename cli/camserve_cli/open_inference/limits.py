"""What the front accepts at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of the front, on both protocols.

    Attributes:
        max_request, max_reply: of a body or a message, in bytes; TorchServe's keys
            ``max_request_size`` and ``max_response_size``.
        max_active: requests that are read, forwarded or answered at a time.
        max_waiting: requests that wait for that, without their bodies being read; TorchServe's key
            ``job_queue_size``.
        memory: for the bodies of all requests and replies, in bytes. Translating a message takes up
            to three times its own.
        max_connections: over HTTP.
        max_streams: calls of one connection at a time, over gRPC.
        max_headers: of a request, in bytes.
        header_seconds: for the first headers of a connection.
        receive_seconds: for the body of a request.
        send_seconds: for a reply to be read.
        drain_seconds: for the requests in work when the front stops.
    """

    max_request: int = 28_000_000
    max_reply: int = 67_108_864
    max_active: int = 64
    max_waiting: int = 200
    memory: int = 512 * 1024 * 1024
    max_connections: int = 500
    max_streams: int = 100
    max_headers: int = 8192
    header_seconds: float = 10.0
    receive_seconds: float = 60.0
    send_seconds: float = 90.0
    drain_seconds: float = 20.0

    def __post_init__(self) -> None:
        largest = max(self.max_request, self.max_reply)
        if self.memory < largest:
            raise ValueError(f"memory {self.memory}: accepted is {largest} bytes or more")

    @property
    def max_calls(self) -> int:
        """The most gRPC calls at a time, of which the cheap ones do not wait for admission."""
        return self.max_active + self.max_waiting + 200
