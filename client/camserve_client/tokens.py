"""The token that opens the server, or where a new one comes from."""

from __future__ import annotations

import re
from collections.abc import Callable
from threading import Lock

#: A token, or what gives one when it is called: TorchServe's tokens live an hour. None: no token.
Token = str | Callable[[], str] | None


class Tokens:
    """The token of all of a client's calls.

    Calls that run at once share one renewal: TorchServe's new token ends the one before, so two
    renewals would lock each other's calls out.
    """

    def __init__(self, source: Token) -> None:
        self._source = _checked(source) if isinstance(source, str) else source
        self._token: str | None = None
        self._lock = Lock()

    @property
    def renewable(self) -> bool:
        """Whether another token can be had when the server refuses one."""
        return callable(self._source)

    def get(self, refused: str | None = None) -> str | None:
        """The token to call with; a new one where there is none yet, or it is the refused one.

        Raises:
            ValueError: what the callable gave cannot be a token.
        """
        if not callable(self._source):
            return self._source
        with self._lock:
            if self._token is None or self._token == refused:
                self._token = _checked(self._source())
            return self._token


def _checked(token: str) -> str:
    # A line break at the end of a file's only line would end up in a header. It stays unsaid which
    # token it is: messages are logged.
    if not re.fullmatch(r"[!-~]+", token):
        raise ValueError("a token is printable ASCII without spaces or line breaks")
    return token
