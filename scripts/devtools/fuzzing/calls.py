"""One call as it goes over the wire, in a form that can be kept in a file."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

Protocol = Literal["http", "unary", "stream", "duplex"]


@dataclass(frozen=True)
class Call:
    """What is sent, and what must come back.

    Attributes:
        family: what kind of thing it tries.
        protocol: HTTP, or the kind of gRPC method.
        method: HTTP's, or gRPC's full name.
        target: the path with its query, as it stands in the request; empty for gRPC.
        headers: of HTTP; one name may stand there twice.
        body: HTTP's, or the serialized message.
        digest: of the pixels that must come back; empty where any sound answer will do.
        label: of the class that must be found; empty likewise.
    """

    family: str
    protocol: Protocol
    method: str
    target: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    digest: str = ""
    label: str = ""

    def text(self) -> str:
        """As JSON, the body in base64."""
        fields: dict[str, Any] = asdict(self)
        return json.dumps({**fields, "body": base64.b64encode(self.body).decode()}, indent=2)
