"""The clients over HTTP."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from email.utils import mktime_tz, parsedate_tz
from urllib.parse import quote

import httpx

from camserve_client.answers import refusal
from camserve_client.calls import AsyncCalls, Request, SyncCalls
from camserve_client.errors import CamserveError, TimedOutError, UnavailableError
from camserve_client.tokens import Token

#: Too busy, or a worker died; TorchServe has the latter two for either, a proxy the first.
_BUSY = (429, 503, 507)
#: A caller of more at once waits for a free one.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100)


class Client(SyncCalls):
    """Blocking calls over HTTP.

    Args:
        address: the server's base URL, as ``http://127.0.0.1:8080``.
        model: the model's name.
        version: its version; the server's default one by default.
        token: that authorizes the calls, or a callable that gives one: it is called before the
            first call, and once more for a call whose token the server refuses.
        timeout: the seconds that an attempt may take to connect, and each pause of the server.
        retries: how often a call is repeated while the server is unavailable, each time after a
            longer wait.
        verify: the server's certificate, against the system's authorities by default; an authority
            of one's own as ``ssl.create_default_context(cafile="ca.pem")``.
        transport: what httpx sends through; for tests.
        sleep: waits before a repetition; for tests.

    Raises:
        ValueError: an argument is not accepted.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: str | None = None,
        token: Token = None,
        timeout: float = 30.0,
        retries: int = 4,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(model, version, token, timeout, retries)
        self._sleep = sleep
        self._path = _path(model, version)
        self._http = httpx.Client(
            base_url=_base(address),
            timeout=_timeout(timeout),
            limits=_LIMITS,
            verify=verify,
            transport=transport,
        )

    def close(self) -> None:
        self._http.close()

    def _send(self, request: Request) -> bytes:
        try:
            response = self._http.post(self._path, content=request.photo, headers=_headers(request))
        except httpx.RequestError as failure:
            raise _unreachable(failure) from failure
        return _body(response)


class AsyncClient(AsyncCalls):
    """Calls over HTTP to await; the arguments are those of :class:`Client`."""

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: str | None = None,
        token: Token = None,
        timeout: float = 30.0,
        retries: int = 4,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(model, version, token, timeout, retries)
        self._sleep = sleep
        self._path = _path(model, version)
        self._http = httpx.AsyncClient(
            base_url=_base(address),
            timeout=_timeout(timeout),
            limits=_LIMITS,
            verify=verify,
            transport=transport,
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _send(self, request: Request) -> bytes:
        try:
            response = await self._http.post(
                self._path, content=request.photo, headers=_headers(request)
            )
        except httpx.RequestError as failure:
            raise _unreachable(failure) from failure
        return _body(response)


def _base(address: str) -> httpx.URL:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"address {address!r}: accepted is a URL, as http://127.0.0.1:8080")
    return url


def _path(model: str, version: str | None) -> str:
    return "/".join(["/predictions", *(quote(part, "") for part in (model, version) if part)])


def _timeout(seconds: float) -> httpx.Timeout:
    # The calls that hold the connections end; so does the wait for one of them.
    return httpx.Timeout(seconds, pool=None)


def _headers(request: Request) -> dict[str, str]:
    headers = {"Content-Type": "application/octet-stream", "X-Explain": request.options}
    if request.token is not None:
        headers["Authorization"] = f"Bearer {request.token}"
    return headers


def _unreachable(failure: httpx.RequestError) -> CamserveError:
    """What a failure on the way is to the caller."""
    url = failure.request.url
    if isinstance(failure, httpx.TimeoutException) and not isinstance(
        failure, httpx.ConnectTimeout
    ):
        return TimedOutError(f"{url} did not answer in time")
    return UnavailableError(f"{url} cannot be reached: {failure or type(failure).__name__}")


def _body(response: httpx.Response) -> bytes:
    """The body of a reply.

    Raises:
        UnavailableError: the server is busy.
        RefusedError: any other answer than a reply.
    """
    if response.status_code == httpx.codes.OK:
        return response.content
    error = refusal(response.status_code, response.content, response.reason_phrase)
    if response.status_code in _BUSY:
        raise UnavailableError(str(error), _retry_after(response))
    raise error


def _retry_after(response: httpx.Response) -> float | None:
    """The header Retry-After in seconds: a number of them, or a date (RFC 9110, 10.2.3)."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    date = parsedate_tz(value)
    return None if date is None else max(0.0, mktime_tz(date) - time.time())
