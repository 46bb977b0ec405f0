"""How long a provider that fails is asked again."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from dataclasses import dataclass

from app.provider.circuit_breaker import FAILURES
from app.provider.failures import ProviderFailure

_LONGEST_BACKOFF_S = 30.0
# A server that is no provider at all never makes sense: not worth all the time that an outage may take.
_SENSELESS_RETRIES = 4


@dataclass(frozen=True)
class RetryPolicy:
    """What one call may cost.

    Attributes:
        retries: attempts after the first, where what failed may pass.
        malformed_retries: attempts after the first, where the answer could not be understood.
        retry_s: no attempt begins later than this after the first.
        attempt_s: the limit of one attempt; the task's deadline holds beside it.
        shortest_pause_s: between two attempts, though `Retry-After` may ask for less.
        breaker_threshold: failed calls in a row, after which the provider is left alone for a while.
    """

    retries: float = 2
    malformed_retries: int = 0
    retry_s: float = math.inf
    attempt_s: float = math.inf
    shortest_pause_s: float = 0.0
    breaker_threshold: float = FAILURES


# Somebody waits: their deadline is the limit.
ONLINE = RetryPolicy()


def offline(*, attempt_s: float, retry_s: float) -> RetryPolicy:
    """For a run that nobody waits for, and that an outage of minutes should not end."""
    return RetryPolicy(
        retries=math.inf,
        malformed_retries=_SENSELESS_RETRIES,
        retry_s=retry_s,
        attempt_s=attempt_s,
        shortest_pause_s=1.0,
        breaker_threshold=math.inf,
    )


class Retries:
    """Those of one call, which begins with this.

    Args:
        first_backoff_s: the pause before the first; it doubles with each.
    """

    def __init__(self, retry_policy: RetryPolicy, *, first_backoff_s: float) -> None:
        self._retry_policy = retry_policy
        self._first_backoff_s = first_backoff_s
        self._ends = asyncio.get_running_loop().time() + retry_policy.retry_s
        self._made: Counter[bool] = Counter()

    @property
    def count(self) -> int:
        return self._made.total()

    def pause_after(self, failure: ProviderFailure) -> float:
        """How many seconds to wait before the next.

        Raises:
            ProviderFailure: the same, if there is none. It tells which setting would allow for more.
        """
        if self._made[failure.is_transient] >= self._limit(failure):
            raise failure
        pause = self._pause(failure)
        if pause > self._ends - asyncio.get_running_loop().time():
            failure.summary += (
                f" ({self._spent(failure)}; EMBEDDING_RETRY_S is {self._retry_policy.retry_s:g} s)"
            )
            raise failure
        self._made[failure.is_transient] += 1
        return pause

    def _limit(self, failure: ProviderFailure) -> float:
        if failure.is_transient:
            return self._retry_policy.retries
        return self._retry_policy.malformed_retries if failure.status is None else 0

    def _pause(self, failure: ProviderFailure) -> float:
        backoff = min(_LONGEST_BACKOFF_S, self._first_backoff_s * 2.0 ** min(self.count, 16))
        backoff *= random.uniform(0.5, 1.0)  # noqa: S311 - so that clients do not come back all at once
        if failure.retry_after_s is None:
            return backoff
        return max(failure.retry_after_s, min(backoff, self._retry_policy.shortest_pause_s))

    def _spent(self, failure: ProviderFailure) -> str:
        wanted = failure.retry_after_s or 0
        if wanted > self._retry_policy.retry_s:
            return f"it wants to be left alone for {wanted:.0f} s"
        return f"tried {self.count + 1} times"
