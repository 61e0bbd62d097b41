"""What the front accepts at most."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _limit(default: Any, meaning: str) -> Any:
    """A field of :class:`Limits`, with what ``--help`` says of it."""
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class Limits:
    """The limits of the front, the same on both protocols where nothing else is said.

    Every field is an option of ``python -m camserve_cli.open_inference``.
    """

    max_request: int = _limit(28_000_000, "Bytes of a request; TorchServe's max_request_size.")
    max_reply: int = _limit(67_108_864, "Bytes of a reply; TorchServe's max_response_size.")
    max_active: int = _limit(64, "Requests that are read, forwarded or answered at a time.")
    max_waiting: int = _limit(
        200, "Requests that wait for that and are not read; TorchServe's job_queue_size."
    )
    memory: int = _limit(
        512 * 1024 * 1024,
        "Bytes of all requests and replies. Translating a message takes up to three times its own.",
    )
    max_connections: int = _limit(500, "Connections over HTTP.")
    max_streams: int = _limit(100, "Calls of one connection at a time over gRPC.")
    max_headers: int = _limit(8192, "Bytes of a line of headers over HTTP, of all over gRPC.")
    header_seconds: float = _limit(10.0, "For the first headers of a connection over HTTP.")
    receive_seconds: float = _limit(60.0, "For the body of a request.")
    silence_seconds: float = _limit(10.0, "For the next bytes of a body over HTTP.")
    send_seconds: float = _limit(90.0, "For a reply to be read.")
    drain_seconds: float = _limit(20.0, "For the requests in work when the front stops.")

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"{name} is {value}; accepted is more than 0")
        largest = max(self.max_request, self.max_reply)
        if self.memory < largest:
            raise ValueError(f"memory is {self.memory}; accepted is {largest} bytes or more")

    @property
    def max_calls(self) -> int:
        """The most gRPC calls at a time, of which the cheap ones do not wait for admission."""
        return self.max_active + self.max_waiting + 200
