"""A limit on each client's requests, counted in moving windows."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from bisect import bisect_left
from collections import OrderedDict
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from limits import parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.errors import StorageError

from app.domain.errors import Overloaded

logger = logging.getLogger(__name__)

# A healthy Redis answers within a few milliseconds.
_STORAGE_TIMEOUT_S = 0.25
_STORAGE_CONNECTIONS = 16


class Clock(Protocol):
    """The two functions of the module `time` that are used here; both give seconds."""

    def time(self) -> float: ...

    def monotonic(self) -> float: ...


class MovingWindows(MemoryStorage):
    """The library's storage in memory with another moving window, which keeps only the times of requests.

    The stock one scans all clients for each request, in a thread, and moves all of a client's entries, which
    takes 80 µs instead of 2.

    Attributes:
        times: the monotonic times of each client's allowed requests, oldest first; the clients are in the
            order of their latest request.
    """

    def __init__(self, clock: Clock = time) -> None:
        super().__init__()
        self._clock = clock
        self.times: OrderedDict[str, list[float]] = OrderedDict()

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now = self._clock.monotonic()
        self._forget_before(now - expiry)
        times = self.times.get(key) or []
        expired = bisect_left(times, now - expiry)
        if len(times) - expired + amount > limit:
            return False
        if expired > len(times) // 2:  # only then, since deleting moves all later entries
            del times[:expired]
        times += [now] * amount
        self.times[key] = times
        self.times.move_to_end(key)
        return True

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        now = self._clock.monotonic()
        times = self.times.get(key) or []
        expired = bisect_left(times, now - expiry)
        start = times[expired] if expired < len(times) else now
        return self._clock.time() - (now - start), len(times) - expired

    def _forget_before(self, start: float) -> None:
        while self.times:
            key, times = next(iter(self.times.items()))
            if times[-1] >= start:
                break
            del self.times[key]


def make_storage(address: str) -> MemoryStorage | RedisStorage:
    """Make the storage of a rate limiter, without connecting to it.

    Args:
        address: `memory://`, or the address of a Redis.
    """
    if address.startswith("memory:"):
        return MovingWindows()
    # Imported here, because it takes 0.3 s and most servers do not use it.
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    options: dict[str, Any] = {
        "socket_timeout": _STORAGE_TIMEOUT_S,
        "socket_connect_timeout": _STORAGE_TIMEOUT_S,
        # No retries, which would delay requests. A closed connection is opened again even without them.
        "retry": Retry(NoBackoff(), 0),
    }
    return RedisStorage(f"async+{address}", wrap_exceptions=True, implementation="redispy", **options)


class Verdict(NamedTuple):
    """The decision about a request, with the requests left and the seconds until one more is allowed."""

    allowed: bool
    remaining: int
    reset_s: int


class RateLimiter:
    """A rate limiter with a moving window; processes that share the storage share the counts."""

    def __init__(
        self,
        limit: str,
        storage: MemoryStorage | RedisStorage,
        *,
        refuse_when_down: bool,
        pause_s: float = 5,
        clock: Clock = time,
    ) -> None:
        """Parse the limit.

        Args:
            limit: such as `100/minute`.
            refuse_when_down: refuse all requests while the storage does not answer; otherwise allow all.
            pause_s: the time for which a storage that did not answer is left out.
        """
        self.limit = parse(limit)
        self._amount, self._expiry_s = self.limit.amount, self.limit.get_expiry()
        self._key_for = lru_cache(maxsize=1024)(self.limit.key_for)
        self._storage = storage
        self._refuse_when_down = refuse_when_down
        self._pause_s = pause_s
        self._clock = clock
        # Without it, the client's pool would open a connection for each request of a burst.
        self._slots = asyncio.Semaphore(_STORAGE_CONNECTIONS)
        self._down = False
        self._try_at = 0.0

    async def take(self, *client: str) -> Verdict | None:
        """Count a request if it is allowed; None if the storage does not answer and every request is allowed.

        Raises:
            Overloaded: the storage does not answer, and every request is refused.
        """
        async with self._slots:
            if self._down:
                if self._clock.monotonic() < self._try_at:
                    self._check_policy()
                    return None
                self._try_at = self._clock.monotonic() + self._pause_s
            try:
                # These are the two calls of the library's moving window, which formats the key twice.
                key = self._key_for(*client)
                allowed = await self._storage.acquire_entry(key, self._amount, self._expiry_s)
                start, count = await self._storage.get_moving_window(key, self._amount, self._expiry_s)
            except (StorageError, OSError) as error:
                self._note_down(error)
                self._check_policy()
                return None
        self._note_up()
        reset_s = max(1, math.ceil(start + self._expiry_s - self._clock.time()))
        return Verdict(allowed, max(0, self._amount - count) if allowed else 0, reset_s)

    def _check_policy(self) -> None:
        if self._refuse_when_down:
            raise Overloaded("the rate limit cannot be checked", retry_after_s=math.ceil(self._pause_s))

    def _note_down(self, error: Exception) -> None:
        self._try_at = self._clock.monotonic() + self._pause_s
        if not self._down:
            effect = "refused" if self._refuse_when_down else "allowed without a limit"
            logger.error("RATE_LIMIT_STORAGE does not answer (%s): requests are %s", error, effect)
        self._down = True

    def _note_up(self) -> None:
        if self._down:
            logger.warning("RATE_LIMIT_STORAGE answers again")
        self._down = False

    async def storage_answers(self) -> bool:
        return bool(await self._storage.check())

    async def close(self) -> None:
        if isinstance(self._storage, RedisStorage):
            bridge: Any = self._storage.bridge
            await bridge.get_connection().aclose()
