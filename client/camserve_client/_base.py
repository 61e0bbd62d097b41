"""What the four clients share: the call with its options, its token, its retries and its reply."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, Unpack

from camserve_client.errors import AuthenticationError, CamserveError
from camserve_client.options import ExplainOptions, PredictOptions, to_header_json
from camserve_client.photos import Photo, encode_photo
from camserve_client.replies import Reply
from camserve_client.responses import parse_reply
from camserve_client.retry import RetryPolicy, RetryState
from camserve_client.tokens import Token, TokenProvider


@dataclass(frozen=True)
class ClientConfig:
    """The arguments that every client has.

    Attributes:
        model: the model's name.
        version: its version; None is the server's default version.
        timeout: the timeout of an attempt, in seconds.
        retries: how often a call is retried while the server is unavailable.

    Raises:
        ValueError: an argument is not valid.
    """

    model: str
    version: str | None
    timeout: float
    retries: int

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("a model's name must not be empty")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout {self.timeout!r}: accepted is a number of seconds above 0")
        if self.retries < 0:
            raise ValueError(f"retries {self.retries!r}: accepted is a whole number from 0")


@dataclass(frozen=True)
class PredictionRequest:
    """One attempt, independent of the transport.

    Attributes:
        photo: the bytes of an image file.
        options: a JSON object in ASCII.
        token: the token, if there is one.
    """

    photo: bytes
    options: str
    token: str | None


class _CallState:
    """The configuration, the token and the retry policy of a client."""

    def __init__(self, config: ClientConfig, token: Token) -> None:
        self._config = config
        self._tokens = TokenProvider(token)
        self._retry_policy = RetryPolicy(config.retries, max_retry_after=config.timeout)

    def _retry_state(self) -> RetryState:
        return RetryState(self._retry_policy, self._tokens.can_renew)


class _BaseClient(_CallState, ABC):
    """Blocking calls. One client may be used by several threads at once."""

    _sleep: Callable[[float], None]

    def explain(self, photo: Photo, **options: Unpack[ExplainOptions]) -> Reply:
        """Predict the classes of a photo, and explain them.

        Args:
            photo: the bytes of an image file, a file's path, pixels, or a PIL image of 8 or 16 bits
                a channel. Pixels are an array of uint8, uint16, bool or floats from 0 to 1, of
                shape (h, w) for grey, (h, w, 3) for RGB or (h, w, 4) for RGBA. Arrays and PIL
                images are sent as PNG, which may be larger than the server accepts (20 MB by
                default) where their file is not.
            options: the server's options; see :class:`camserve_client.ExplainOptions`.

        Raises:
            RequestRejectedError: the request is wrong: an option, the photo, the model's name.
            ServerFailedError: the server failed on the request.
            UnavailableError: the server cannot be reached, stayed busy or did not answer in time.
            InvalidReplyError: the server's reply does not match the schema.
            OSError: the photo's file cannot be read.
            TypeError, ValueError: the photo or an option has a type or form that cannot be sent.
        """
        data, options_json, retry = (
            encode_photo(photo),
            to_header_json(options),
            self._retry_state(),
        )
        token = self._tokens.get()
        while True:
            try:
                return parse_reply(self._send(PredictionRequest(data, options_json, token)))
            except CamserveError as error:
                delay = retry.delay_or_raise(error)
                rejected = token if isinstance(error, AuthenticationError) else None
            self._sleep(delay)
            token = self._tokens.get(rejected)

    def predict(self, photo: Photo, **options: Unpack[PredictOptions]) -> Reply:
        """Predict the classes of a photo without explanations.

        The arguments and errors are those of :meth:`explain`, without the option ``explain``.
        """
        return self.explain(photo, explain=False, **options)

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    @abstractmethod
    def _send(self, request: PredictionRequest) -> bytes:
        """Make one attempt, and return the body of the reply.

        Raises:
            CamserveError: the attempt failed.
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


class _BaseAsyncClient(_CallState, ABC):
    """Calls to await. The number of concurrent calls is up to the caller."""

    _sleep: Callable[[float], Awaitable[None]]

    async def explain(self, photo: Photo, **options: Unpack[ExplainOptions]) -> Reply:
        """Predict the classes of a photo, and explain them.

        Args:
            photo: the bytes of an image file, a file's path, pixels, or a PIL image of 8 or 16 bits
                a channel. Pixels are an array of uint8, uint16, bool or floats from 0 to 1, of
                shape (h, w) for grey, (h, w, 3) for RGB or (h, w, 4) for RGBA. Arrays and PIL
                images are sent as PNG, which may be larger than the server accepts (20 MB by
                default) where their file is not.
            options: the server's options; see :class:`camserve_client.ExplainOptions`.

        Raises:
            CamserveError, OSError, TypeError, ValueError: as for :meth:`Client.explain`.
        """
        data = await asyncio.to_thread(encode_photo, photo)
        options_json, retry = to_header_json(options), self._retry_state()
        token = await self._token()
        while True:
            try:
                return parse_reply(await self._send(PredictionRequest(data, options_json, token)))
            except CamserveError as error:
                delay = retry.delay_or_raise(error)
                rejected = token if isinstance(error, AuthenticationError) else None
            await self._sleep(delay)
            token = await self._token(rejected)

    async def predict(self, photo: Photo, **options: Unpack[PredictOptions]) -> Reply:
        """Predict the classes of a photo without explanations.

        The arguments and errors are those of :meth:`explain`, without the option ``explain``.
        """
        return await self.explain(photo, explain=False, **options)

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections."""

    @abstractmethod
    async def _send(self, request: PredictionRequest) -> bytes:
        """Make one attempt, and return the body of the reply.

        Raises:
            CamserveError: the attempt failed.
        """

    async def _token(self, rejected: str | None = None) -> str | None:
        # In a thread: the caller's callable may block while it requests a token.
        return await asyncio.to_thread(self._tokens.get, rejected)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
