"""One call as it is sent, in a form that can be kept in a file."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Literal

Protocol = Literal["http", "unary", "stream", "duplex"]


@dataclass(frozen=True)
class Call:
    """What is sent, and what must come back.

    Attributes:
        kind: what it tests; a detail may follow a colon.
        protocol: HTTP, or the type of the gRPC method.
        method: HTTP's, or gRPC's full name.
        target: the path with its query, as it stands in the request; empty for gRPC.
        headers: of HTTP; a name may occur twice.
        body: HTTP's, or the serialized message.
        digest: of the pixels that must come back; empty where any sound answer will do.
        label: of the class that must be predicted; empty likewise.
    """

    kind: str
    protocol: Protocol
    method: str
    target: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    digest: str = ""
    label: str = ""

    @property
    def must_succeed(self) -> bool:
        """Whether it is valid, so that only the right prediction and pixels are an answer."""
        return bool(self.digest)

    def to_json(self) -> str:
        """All of it, the body in base64."""
        fields = {
            "family": self.kind,
            "protocol": self.protocol,
            "method": self.method,
            "target": self.target,
            "headers": self.headers,
            "body": base64.b64encode(self.body).decode(),
            "digest": self.digest,
            "label": self.label,
        }
        return json.dumps(fields, indent=2)
