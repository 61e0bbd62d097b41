"""Whether a call that failed is worth repeating, and when."""

from __future__ import annotations

import random
from dataclasses import dataclass

from camserve_client.errors import (
    CamserveError,
    TimedOutError,
    TokenRefusedError,
    UnavailableError,
)

#: The longest wait before the first repetition and before any, in seconds.
BASE, CAP = 0.2, 5.0


@dataclass
class Effort:
    """What one call may still do to succeed. Every call is idempotent, so it may be repeated.

    Attributes:
        retries: how often it is repeated while the server is unavailable.
        patience: the longest wait, in seconds, that a server may ask for.
        renewable: whether a refused token may be exchanged for another, once.
        failed: how often the server was unavailable so far.
    """

    retries: int
    patience: float
    renewable: bool
    failed: int = 0

    def after(self, failure: CamserveError) -> float:
        """The seconds to wait before the call is repeated: exponential back-off, full jitter.

        Full jitter (any wait from none to the longest) keeps callers that were refused together
        from coming back together; see "Exponential Backoff And Jitter", AWS Architecture Blog.

        Raises:
            CamserveError: this failure is the call's end.
        """
        if isinstance(failure, TokenRefusedError) and self.renewable:
            self.renewable = False
            return 0.0
        if not isinstance(failure, UnavailableError) or isinstance(failure, TimedOutError):
            raise failure
        self.failed += 1
        asked = failure.retry_after or 0.0
        if asked > self.patience:
            raise UnavailableError(f"{failure}; to be asked again in {asked:g} s", asked)
        if self.failed > self.retries:
            tried = f"; tried {self.failed} times" if self.retries else ""
            raise UnavailableError(f"{failure}{tried}", failure.retry_after)
        longest = min(CAP, BASE * 2 ** (self.failed - 1))
        return max(asked, random.uniform(0, longest))  # noqa: S311  # spreads calls, hides nothing
