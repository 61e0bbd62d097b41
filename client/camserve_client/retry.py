"""Decides whether a failed call is retried, and after which delay."""

from __future__ import annotations

import random
from dataclasses import dataclass

from camserve_client.errors import (
    AuthenticationError,
    CamserveError,
    RequestTimeoutError,
    UnavailableError,
)


@dataclass(frozen=True)
class RetryPolicy:
    """The limits of a client's retries. Every call is idempotent, so it may be retried.

    Attributes:
        max_retries: how often a call is retried while the server is unavailable.
        max_retry_after: the longest delay, in seconds, that a server may ask for.
        initial_delay: the upper bound of the first delay, in seconds; it doubles with each retry.
        max_delay: the upper bound of every delay that the server did not ask for, in seconds.
    """

    max_retries: int
    max_retry_after: float
    initial_delay: float = 0.2
    max_delay: float = 5.0


@dataclass
class RetryState:
    """The retries of one call.

    Attributes:
        policy: the client's.
        can_renew_token: whether a rejected token may still be replaced; a call does that once.
        failures: how often the server was unavailable so far.
    """

    policy: RetryPolicy
    can_renew_token: bool
    failures: int = 0

    def delay_or_raise(self, error: CamserveError) -> float:
        """The seconds to wait before the next attempt: exponential backoff with full jitter.

        Full jitter, a random delay between zero and the upper bound, prevents clients that failed
        at the same time from retrying at the same time; see "Exponential Backoff And Jitter", AWS
        Architecture Blog.

        Raises:
            CamserveError: there is no further attempt.
        """
        if isinstance(error, AuthenticationError) and self.can_renew_token:
            self.can_renew_token = False
            return 0.0
        if not isinstance(error, UnavailableError) or isinstance(error, RequestTimeoutError):
            raise error
        policy = self.policy
        self.failures += 1
        retry_after = error.retry_after or 0.0
        if retry_after > policy.max_retry_after:
            raise UnavailableError(f"{error}; retry after {retry_after:g} s", retry_after)
        if self.failures > policy.max_retries:
            tried = f"; tried {self.failures} times" if policy.max_retries else ""
            raise UnavailableError(f"{error}{tried}", error.retry_after)
        bound = min(policy.max_delay, policy.initial_delay * 2 ** (self.failures - 1))
        return max(retry_after, random.uniform(0, bound))  # noqa: S311  # not for cryptography
