"""What both protocols ask for, answered by a host: health, metadata, authorization, inference."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from camserve.protocols.input_tensors import IMAGE
from camserve.protocols.output_tensors import OUTPUT_METADATA
from camserve_cli.open_inference.admission import Admission, Reservation
from camserve_cli.open_inference.cached import CachedCall
from camserve_cli.open_inference.errors import FrontError
from camserve_cli.open_inference.host import HostReply, HostRequest, ModelHost, Models

#: Seconds for which an answer about health is good, so that callers cannot load the server by it.
_HEALTH_SECONDS: Final = 1.0
#: Seconds for which a token is known to be accepted. The host checks it again for each prediction.
_TOKEN_SECONDS: Final = 5.0
_MAX_TOKENS: Final = 1000
#: The extensions of the protocol, by the names that Triton gives them.
EXTENSIONS: Final = ("binary_tensor_data", "classification")


@dataclass(frozen=True)
class TensorMetadata:
    """A tensor of a model.

    Attributes:
        shape: -1 for an axis of any length.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelMetadata:
    """A model.

    Attributes:
        versions: the default one first.
        platform: the host that runs it.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...] = (TensorMetadata(IMAGE, "BYTES", (-1,)),)
    outputs: tuple[TensorMetadata, ...] = tuple(
        TensorMetadata(name, datatype, shape) for name, (datatype, shape) in OUTPUT_METADATA.items()
    )


class InferenceService:
    """Open Inference and KServe v1 for the models of a host.

    Args:
        host: that runs the models.
        admission: limits the requests in work.
    """

    def __init__(self, host: ModelHost, admission: Admission) -> None:
        self.admission = admission
        self._host = host
        self._live = CachedCall[None, bool](lambda _: host.is_live(), _HEALTH_SECONDS)
        self._models = CachedCall[None, Models](lambda _: host.models(), _HEALTH_SECONDS)
        self._ready = CachedCall(self._ask_ready, _HEALTH_SECONDS)
        # Until when a token is known to be accepted, by its hash.
        self._accepted: dict[bytes, float] = {}

    async def is_live(self) -> bool:
        """Whether the host answers, and no restart is needed."""
        return await self._live.get(None)

    async def is_ready(self) -> bool:
        """Whether every model answers, and new requests are accepted."""
        if self.admission.is_closed:
            return False
        try:
            models = await self.models()
        except FrontError:
            return False
        ready = await asyncio.gather(*(self._ready.get((model, "")) for model in models))
        return all(ready)

    async def is_model_ready(self, model: str, version: str) -> bool:
        """Whether a model answers, and new requests are accepted.

        Raises:
            FrontError: ``not_found``; ``unavailable``: the host does not say what it serves.
        """
        if self.admission.is_closed:
            return False
        await self._versions(model, version)
        return await self._ready.get((model, version))

    async def models(self) -> Models:
        """The models that the host serves.

        Raises:
            FrontError: ``unavailable``: it does not say.
        """
        return await self._models.get(None)

    async def model_metadata(self, model: str, version: str) -> ModelMetadata:
        """What a model takes and gives. One version of it, if one is named.

        Raises:
            FrontError: ``not_found``; ``unavailable``: the host does not say what it serves.
        """
        versions = await self._versions(model, version)
        return ModelMetadata(model, (version,) if version else versions, self._host.platform)

    async def authorize(self, authorization: str) -> None:
        """Return if the host accepts a caller's token, or accepted it some seconds ago.

        Raises:
            FrontError: ``unauthorized``, or ``unavailable``: the host does not say.
        """
        # A token is kept as its hash alone.
        digest = hashlib.sha256(authorization.encode("utf-8", "surrogateescape")).digest()
        if time.monotonic() < self._accepted.get(digest, 0.0):
            return
        await self._host.check_authorization(authorization)
        if len(self._accepted) >= _MAX_TOKENS:
            self._accepted.clear()
        self._accepted[digest] = time.monotonic() + _TOKEN_SECONDS

    async def infer(self, request: HostRequest, reservation: Reservation) -> HostReply:
        """The handler's answer to a request that was admitted, be it an error.

        Args:
            reservation: of the request; that of the reply afterwards.

        Raises:
            FrontError: the host itself answers with an error, does not answer in time, or cannot be
                reached.
        """
        return await self._host.infer(request, reservation.exchange)

    async def _versions(self, model: str, version: str) -> tuple[str, ...]:
        """The versions of a model, the default one first.

        Raises:
            FrontError: ``not_found``: there is no such model, or no such version of it.
        """
        versions = (await self.models()).get(model)
        if versions is None:
            raise FrontError(
                "not_found",
                f"no model {model[:80]!r} is served here; GET /v2/models lists those that are",
            )
        if version and version not in versions:
            raise FrontError(
                "not_found",
                f"no version {version[:80]!r} of model {model[:80]!r} is served here; accepted: "
                f"{', '.join(versions[:20])}",
            )
        return versions

    async def _ask_ready(self, key: tuple[str, str]) -> bool:
        return await self._host.is_model_ready(*key)


def server_version() -> str:
    """The version of this project; empty where it is not installed."""
    try:
        return version("camserve")
    except PackageNotFoundError:
        return ""


def normalize_authorization(header: str) -> str:
    """A caller's header with the scheme as hosts read it: its name has no case (RFC 9110, 11.1)."""
    scheme, _, token = header.strip().partition(" ")
    return f"Bearer {token.strip()}" if scheme.lower() == "bearer" else header
