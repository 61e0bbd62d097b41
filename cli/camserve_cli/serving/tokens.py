"""TorchServe's tokens: what its key_file.json says of them, and when one is renewed.

A new token ends the one before it, for every caller. So one that is still good is renewed only
where a person asks for that. Callers that find it about to expire wait for one renewal, and share
what comes of it.
"""

from __future__ import annotations

import fcntl
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from camserve_cli.errors import CommandError

KINDS = ("inference", "management")


class TokenError(CommandError):
    """What keeps a token from being read, in words for the person who asks for it."""


@dataclass(frozen=True)
class Token:
    """A token of key_file.json.

    Attributes:
        text: what a call carries.
        expires: when, in seconds since the epoch; infinite for the key that authorizes new tokens.
    """

    text: str
    expires: float

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Token:
        """What key_file.json says of one.

        Raises:
            KeyError, TypeError, ValueError: it is not as TorchServe writes it.
        """
        if "expiration time" not in content:
            return cls(str(content["key"]), math.inf)
        expires = datetime.fromisoformat(content["expiration time"])
        return cls(str(content["key"]), expires.timestamp())

    @property
    def seconds_left(self) -> float:
        """How long it is still good, 0 after that."""
        return max(0.0, self.expires - time.time())

    def to_json(self) -> dict[str, Any]:
        """The token, when it expires (ISO 8601, UTC), and the seconds until then."""
        expires = datetime.fromtimestamp(self.expires, UTC).isoformat(timespec="seconds")
        return {
            "token": self.text,
            "expires": expires.replace("+00:00", "Z"),
            "seconds_left": round(self.seconds_left, 1),
        }


def renewal_margin(lifetime: float) -> float:
    """The seconds before its end in which a token is renewed: a tenth of its life, at most 60."""
    return min(60.0, lifetime / 10)


def read_tokens(run_dir: Path) -> dict[str, Token]:
    """The tokens of a server by what they open: ``inference``, ``management`` and ``API``.

    Raises:
        TokenError: key_file.json is not there, or not as TorchServe writes it.
    """
    file = run_dir / "key_file.json"
    try:
        content = json.loads(file.read_text("utf-8"))
        return {kind: Token.parse(content[kind]) for kind in (*KINDS, "API")}
    except (FileNotFoundError, ValueError, KeyError, TypeError) as failure:
        # Not written yet, or half written.
        raise TokenError(f"no tokens in {file}: {failure or 'not as expected'}") from None


def current_token(
    run_dir: Path,
    kind: str,
    lifetime: float,
    renew: Callable[[str], object],
    *,
    replace: bool = False,
) -> Token:
    """A token that is not about to expire.

    Args:
        run_dir: the server's.
        kind: one of :data:`KINDS`.
        lifetime: of a new token, in seconds.
        renew: called with the key that authorizes new tokens, where a new one is needed.
        replace: whether to renew one that is still good, too.

    Raises:
        TokenError: key_file.json cannot be read.
    """
    with _only_renewal(run_dir):
        tokens = read_tokens(run_dir)
        if replace or tokens[kind].seconds_left < renewal_margin(lifetime):
            renew(tokens["API"].text)
            tokens = read_tokens(run_dir)
        return tokens[kind]


@contextmanager
def _only_renewal(run_dir: Path) -> Iterator[None]:
    """Hold the lock of tokens, which ``camserve ready`` holds as well."""
    with ExitStack() as stack:
        # Who may read the tokens may not be allowed to write beside them.
        with suppress(PermissionError):
            lock = stack.enter_context((run_dir / "token.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
