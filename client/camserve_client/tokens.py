"""The token that authorizes calls, and its renewal."""

from __future__ import annotations

import re
from collections.abc import Callable
from threading import Lock

#: A token, or a callable that returns one, because TorchServe's tokens expire after an hour by
#: default. None: calls carry no token.
Token = str | Callable[[], str] | None


class TokenProvider:
    """The current token of a client, shared by all of its calls.

    Concurrent calls share one renewal: a new token from TorchServe invalidates the one before, so
    with two renewals each would invalidate the other's token.
    """

    def __init__(self, source: Token) -> None:
        self._source = _checked(source) if isinstance(source, str) else source
        self._token: str | None = None
        self._lock = Lock()

    @property
    def can_renew(self) -> bool:
        """Whether a rejected token can be replaced by a new one."""
        return callable(self._source)

    def get(self, rejected: str | None = None) -> str | None:
        """The token for the next attempt.

        A callable source is called if there is no token yet, or if the current one is ``rejected``.

        Raises:
            ValueError: the callable returned something that cannot be a token.
        """
        if not callable(self._source):
            return self._source
        with self._lock:
            if self._token is None or self._token == rejected:
                self._token = _checked(self._source())
            return self._token


def _checked(token: str) -> str:
    # A token read from a file may end with a line break, which a header must not contain. The
    # message does not contain the token, because messages are logged.
    if not re.fullmatch(r"[!-~]+", token):
        raise ValueError("a token is printable ASCII without spaces or line breaks")
    return token
