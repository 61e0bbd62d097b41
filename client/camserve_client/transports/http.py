"""The clients over HTTP."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from email.utils import mktime_tz, parsedate_tz
from urllib.parse import quote

import httpx

from camserve_client._base import ClientConfig, PredictionRequest, _BaseAsyncClient, _BaseClient
from camserve_client.errors import (
    CamserveError,
    CertificateError,
    RequestTimeoutError,
    UnavailableError,
)
from camserve_client.responses import error_from_http
from camserve_client.tokens import Token
from camserve_client.transports._loopback import is_loopback

#: The statuses that are worth a retry: overloaded, or a worker died. TorchServe answers 503 and 507
#: for both, a proxy 429.
_RETRYABLE = (429, 503, 507)
#: Calls beyond these wait for a free connection.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100)


class Client(_BaseClient):
    """Blocking calls over HTTP.

    Args:
        address: the server's base URL, as ``http://127.0.0.1:8080``.
        model: the model's name.
        version: the model's version; by default the server's default version.
        token: the token, or a callable that returns one. A callable is called before the first
            call, and once more for a call whose token the server rejects.
        timeout: in seconds, for the connection and for each read and write of an attempt.
        retries: how often a call is retried while the server is unavailable, with exponential
            backoff.
        verify: how the server's certificate is verified: True for the system's authorities, or an
            SSL context, such as ``ssl.create_default_context(cafile="ca.pem")``.
        transport: the httpx transport to send through; closed with the client.
        sleep: called with the seconds to wait before a retry; for tests.

    Raises:
        ValueError: an argument is not valid.

    Example:
        >>> with Client("http://127.0.0.1:8080", "resnet50", token=read_token) as client:
        ...     reply = client.explain("cat.jpg", target="tabby", outputs=["overlay"])
        >>> reply.explanations[0].overlay.save("cat-tabby.jpg")
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
        super().__init__(ClientConfig(model, version, timeout, retries), token)
        self._sleep = sleep
        self._path = _path(model, version)
        url = _base_url(address)
        if transport is None and is_loopback(url.host):
            # Given a transport, httpx uses no proxy of the environment.
            transport = httpx.HTTPTransport(verify=verify, limits=_LIMITS)
        self._http = httpx.Client(
            base_url=url,
            timeout=_timeout(timeout),
            limits=_LIMITS,
            verify=verify,
            transport=transport,
        )

    def close(self) -> None:
        self._http.close()

    def _send(self, request: PredictionRequest) -> bytes:
        try:
            response = self._http.post(self._path, content=request.photo, headers=_headers(request))
        except httpx.RequestError as error:
            raise _error_from_httpx(error) from error
        return _body(response)


class AsyncClient(_BaseAsyncClient):
    """Calls over HTTP to await; the arguments are those of :class:`Client`.

    Example:
        >>> async def explain_all(paths):
        ...     async with AsyncClient("http://127.0.0.1:8080", "resnet50") as client:
        ...         return await asyncio.gather(*(client.explain(path) for path in paths))
        >>> replies = asyncio.run(explain_all(["cat.jpg", "dog.jpg"]))
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
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(ClientConfig(model, version, timeout, retries), token)
        self._sleep = sleep
        self._path = _path(model, version)
        url = _base_url(address)
        if transport is None and is_loopback(url.host):
            transport = httpx.AsyncHTTPTransport(verify=verify, limits=_LIMITS)
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=_timeout(timeout),
            limits=_LIMITS,
            verify=verify,
            transport=transport,
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _send(self, request: PredictionRequest) -> bytes:
        try:
            response = await self._http.post(
                self._path, content=request.photo, headers=_headers(request)
            )
        except httpx.RequestError as error:
            raise _error_from_httpx(error) from error
        return _body(response)


def _base_url(address: str) -> httpx.URL:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        url = httpx.URL()
    port_fits = url.port is None or 0 < url.port < 65536
    if url.scheme not in ("http", "https") or not url.host or not port_fits:
        raise ValueError(f"address {address!r}: accepted is a URL, as http://127.0.0.1:8080")
    return url


def _path(model: str, version: str | None) -> str:
    return "/".join(["/predictions", *(quote(part, "") for part in (model, version) if part)])


def _timeout(seconds: float) -> httpx.Timeout:
    # No timeout for a free connection: each call that holds one ends by its own timeout.
    return httpx.Timeout(seconds, pool=None)


def _headers(request: PredictionRequest) -> dict[str, str]:
    headers = {"Content-Type": "application/octet-stream", "X-Explain": request.options}
    if request.token is not None:
        headers["Authorization"] = f"Bearer {request.token}"
    return headers


def _error_from_httpx(error: httpx.RequestError) -> CamserveError:
    """The error for a request that got no response."""
    url = error.request.url
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return RequestTimeoutError(f"{url} did not answer in time")
    if isinstance(error.__cause__, ssl.SSLError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
        # Another attempt finds the same certificate.
        return CertificateError(
            f"{url} has a certificate that is not trusted ({error}); accepted: one of the system's "
            'authorities, or verify=ssl.create_default_context(cafile="ca.pem")'
        )
    return UnavailableError(f"{url} cannot be reached: {error or type(error).__name__}")


def _body(response: httpx.Response) -> bytes:
    """The body of a successful response.

    Raises:
        UnavailableError: the status is one that is worth a retry.
        StatusError: the status is any other than 200.
    """
    if response.status_code == httpx.codes.OK:
        return response.content
    error = error_from_http(response.status_code, response.content, response.reason_phrase)
    if response.status_code in _RETRYABLE:
        raise UnavailableError(str(error), _retry_after(response))
    raise error


def _retry_after(response: httpx.Response) -> float | None:
    """The header Retry-After, a number or a date (RFC 9110, 10.2.3), in seconds."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    date = parsedate_tz(value)
    return None if date is None else max(0.0, mktime_tz(date) - time.time())
