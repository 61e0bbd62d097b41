"""What the four clients share: the call itself, with its token, its repetitions and its reply."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, Unpack

from camserve_client.answers import reply
from camserve_client.errors import CamserveError, TokenRefusedError
from camserve_client.options import Choices, Options, as_json
from camserve_client.photos import Photo, encoded
from camserve_client.replies import Reply
from camserve_client.retry import Effort
from camserve_client.tokens import Token, Tokens


@dataclass(frozen=True)
class Request:
    """What a call carries, whatever the transport.

    Attributes:
        photo: the bytes of an image file.
        options: a JSON object, in ASCII.
        token: that authorizes it, if any.
    """

    photo: bytes
    options: str
    token: str | None


class _Settings:
    """What every client is constructed with, checked."""

    def __init__(
        self, model: str, version: str | None, token: Token, timeout: float, retries: int
    ) -> None:
        if not model:
            raise ValueError("a model's name must not be empty")
        if not 0 < timeout < math.inf:
            raise ValueError(f"timeout {timeout!r}: accepted is a number of seconds above 0")
        if retries < 0:
            raise ValueError(f"retries {retries!r}: accepted is a whole number from 0")
        self._model = model
        self._version = version
        self._timeout = timeout
        self._retries = retries
        self._tokens = Tokens(token)

    def _effort(self) -> Effort:
        return Effort(self._retries, self._timeout, self._tokens.renewable)


class SyncCalls(_Settings, ABC):
    """Calls that block. They may be made from several threads at once."""

    _sleep: Callable[[float], None]

    def explain(self, photo: Photo, **options: Unpack[Options]) -> Reply:
        """Predict and explain a photo.

        Args:
            photo: encoded bytes, a file's path, RGB pixels of shape (h, w, 3), or a PIL image.
            options: the server's; see :class:`camserve_client.Options`.

        Raises:
            RefusedError: the server refuses it: a wrong option, no photo, no such model.
            UnavailableError: the server cannot be reached, stayed busy or did not answer in time.
            ReplyError: the server's answer is not as agreed.
            OSError: the photo's file cannot be read.
        """
        data, chosen, effort = encoded(photo), as_json(options), self._effort()
        token = self._tokens.get()
        while True:
            try:
                return reply(self._send(Request(data, chosen, token)))
            except CamserveError as failure:
                wait = effort.after(failure)
                refused = token if isinstance(failure, TokenRefusedError) else None
            self._sleep(wait)
            token = self._tokens.get(refused)

    def predict(self, photo: Photo, **options: Unpack[Choices]) -> Reply:
        """Predict a photo without an explanation; raises what :meth:`explain` does."""
        return self.explain(photo, explain=False, **options)

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    @abstractmethod
    def _send(self, request: Request) -> bytes:
        """Make one attempt; the body of the reply.

        Raises:
            CamserveError: it got none.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncCalls(_Settings, ABC):
    """Calls to await. Any number may run at once; the caller bounds how many."""

    _sleep: Callable[[float], Awaitable[None]]

    async def explain(self, photo: Photo, **options: Unpack[Options]) -> Reply:
        """Predict and explain a photo; as :meth:`SyncCalls.explain`."""
        data = await asyncio.to_thread(encoded, photo)
        chosen, effort = as_json(options), self._effort()
        token = await self._token()
        while True:
            try:
                return reply(await self._send(Request(data, chosen, token)))
            except CamserveError as failure:
                wait = effort.after(failure)
                refused = token if isinstance(failure, TokenRefusedError) else None
            await self._sleep(wait)
            token = await self._token(refused)

    async def predict(self, photo: Photo, **options: Unpack[Choices]) -> Reply:
        """Predict a photo without an explanation; raises what :meth:`explain` does."""
        return await self.explain(photo, explain=False, **options)

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections."""

    @abstractmethod
    async def _send(self, request: Request) -> bytes:
        """Make one attempt; the body of the reply.

        Raises:
            CamserveError: it got none.
        """

    async def _token(self, refused: str | None = None) -> str | None:
        # A caller's own function may well ask a server for the token.
        return await asyncio.to_thread(self._tokens.get, refused)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
