"""What the services need of the host that runs the models, whichever it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

#: By the name of a model, its versions, the default one first.
Models = Mapping[str, tuple[str, ...]]
#: Is told a reply's length in bytes before it is read, and returns when there is room for it.
ReserveReply = Callable[[int], Awaitable[None]]


@dataclass(frozen=True)
class HostRequest:
    """A request for predictions or explanations, in the protocol of its body.

    Attributes:
        model: its name.
        version: empty for the default one.
        body: as the handler reads it: JSON, or KServe v2 with binary tensors.
        headers: of the body: its type, encoding and the length of its JSON; options.
        explain: the photos are always explained.
        authorization: the caller's; empty where there is none.
        timeout: the caller's, in seconds; None where it set none.
    """

    model: str
    version: str
    body: bytes | bytearray
    headers: Mapping[str, str] = field(default_factory=dict)
    explain: bool = False
    authorization: str = ""
    timeout: float | None = None


@dataclass(frozen=True)
class HostReply:
    """The answer to a :class:`HostRequest`.

    Attributes:
        body: JSON, or KServe v2 with binary tensors.
        content_type: of the body.
        json_length: of the JSON that the binary tensors follow, in bytes; None without any.
        status: as HTTP has it. With another than 200, the body is JSON that says what failed.
    """

    body: bytes | bytearray
    content_type: str = "application/json"
    json_length: int | None = None
    status: int = 200


class ModelHost(Protocol):
    """A host that runs the models.

    Attributes:
        platform: its name, as a model's metadata tells it.
    """

    platform: str

    async def is_live(self) -> bool:
        """Whether the host answers, and no restart is needed."""

    async def models(self) -> Models:
        """The models that the host serves.

        Raises:
            FrontError: ``unavailable``: it does not say.
        """

    async def is_model_ready(self, model: str, version: str) -> bool:
        """Whether a model answers a real prediction now."""

    async def check_authorization(self, authorization: str) -> None:
        """Return if the host accepts a caller's token.

        Args:
            authorization: the header of that name; empty where there is none.

        Raises:
            FrontError: ``unauthorized``, or ``unavailable``: it does not say.
        """

    async def infer(self, request: HostRequest, reserve_reply: ReserveReply) -> HostReply:
        """The handler's answer to a request, be it an error.

        Raises:
            FrontError: the host itself answers with an error, does not answer in time, or cannot be
                reached.
        """
