"""Retries of failed calls to the provider: how many, how long, and the pauses between them."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from dataclasses import dataclass

from app.provider.circuit_breaker import COOL_DOWN_S, FAILURES
from app.provider.failures import ProviderFailure

_LONGEST_BACKOFF_S = 30.0
# A server that is not a provider at all sends only malformed responses: it does not deserve the time of an
# outage.
_SENSELESS_RETRIES = 4


@dataclass(frozen=True)
class RetryPolicy:
    """The limits on the attempts of one call.

    Attributes:
        retries: attempts after the first, for transient failures.
        malformed_retries: attempts after the first, for malformed responses.
        retry_s: the time after the first attempt within which the last one must begin.
        attempt_s: the limit of one attempt, besides the task's deadline.
        alone_s: the deadline of a call outside a request, such as a batch of embeddings; includes retries
            and their pauses.
        first_backoff_s: the pause before the first retry; it doubles with each one.
        shortest_pause_s: the shortest pause between two attempts, even if `Retry-After` asks for less.
        breaker_threshold: consecutive failed calls after which the circuit breaker opens.
        cool_down_s: the time for which it then stays open.
    """

    retries: float = 2
    malformed_retries: int = 0
    retry_s: float = math.inf
    attempt_s: float = math.inf
    alone_s: float = 300.0
    first_backoff_s: float = 0.25
    shortest_pause_s: float = 0.0
    breaker_threshold: float = FAILURES
    cool_down_s: float = COOL_DOWN_S


# A client waits for the answer: its deadline is the limit.
ONLINE = RetryPolicy()


def offline(*, attempt_s: float, retry_s: float) -> RetryPolicy:
    """Make the policy of an indexing run, which no client waits for and which survives outages of minutes."""
    return RetryPolicy(
        retries=math.inf,
        malformed_retries=_SENSELESS_RETRIES,
        retry_s=retry_s,
        attempt_s=attempt_s,
        shortest_pause_s=1.0,
        breaker_threshold=math.inf,
    )


class Retries:
    """The retries of one call, which begins when this object is made."""

    def __init__(self, retry_policy: RetryPolicy) -> None:
        self._retry_policy = retry_policy
        self._ends = asyncio.get_running_loop().time() + retry_policy.retry_s
        self._made: Counter[bool] = Counter()

    @property
    def count(self) -> int:
        return self._made.total()

    def pause_after(self, failure: ProviderFailure) -> float:
        """Count the next retry, and return the seconds to wait before it.

        Raises:
            ProviderFailure: the given one, if there is no further retry. If its time is up, its summary
                names the setting that allows for more.
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
        backoff = min(_LONGEST_BACKOFF_S, self._retry_policy.first_backoff_s * 2.0 ** min(self.count, 16))
        backoff *= random.uniform(0.5, 1.0)  # noqa: S311 - jitter, so that clients do not retry in step
        if failure.retry_after_s is None:
            return backoff
        return max(failure.retry_after_s, min(backoff, self._retry_policy.shortest_pause_s))

    def _spent(self, failure: ProviderFailure) -> str:
        wanted = failure.retry_after_s or 0
        if wanted > self._retry_policy.retry_s:
            return f"it asked for a pause of {wanted:.0f} s"
        return f"tried {self.count + 1} times"
