"""Count what clients ask, in moving windows."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from bisect import bisect_left
from collections import OrderedDict
from functools import lru_cache
from typing import Any, NamedTuple

from limits import parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.errors import StorageError

from app.domain.errors import Overloaded

logger = logging.getLogger(__name__)

# A Redis that works answers within a few milliseconds.
_STORAGE_TIMEOUT_S = 0.25
_STORAGE_CONNECTIONS = 16


class MovingWindows(MemoryStorage):
    """The library's storage, but for the moving window: it keeps only the times of what was let in.

    The stock one looks through all clients with each request, in a thread, and moves all of a client's
    entries: 80 microseconds instead of 2.

    Attributes:
        times: by client, monotonic, in their order; who was let in last is the last of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.times: OrderedDict[str, list[float]] = OrderedDict()

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now = time.monotonic()
        self._forget_before(now - expiry)
        times = self.times.get(key) or []
        over = bisect_left(times, now - expiry)
        if len(times) - over + amount > limit:
            return False
        if over > len(times) // 2:  # not each time: it moves all that follow
            del times[:over]
        times += [now] * amount
        self.times[key] = times
        self.times.move_to_end(key)
        return True

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        now = time.monotonic()
        times = self.times.get(key) or []
        over = bisect_left(times, now - expiry)
        start = times[over] if over < len(times) else now
        return time.time() - (now - start), len(times) - over

    def _forget_before(self, start: float) -> None:
        while self.times:
            key, times = next(iter(self.times.items()))
            if times[-1] >= start:
                break
            del self.times[key]


def make_storage(address: str) -> MemoryStorage | RedisStorage:
    """
    Args:
        address: `memory://`, or of a Redis. Nothing is connected yet.
    """
    if address.startswith("memory:"):
        return MovingWindows()
    # It would bring its import of 0.3 s into every start.
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    options: dict[str, Any] = {
        "socket_timeout": _STORAGE_TIMEOUT_S,
        "socket_connect_timeout": _STORAGE_TIMEOUT_S,
        # Its own tries would hold up requests; a connection that a Redis closed, it opens again without them.
        "retry": Retry(NoBackoff(), 0),
    }
    return RedisStorage(f"async+{address}", wrap_exceptions=True, implementation="redispy", **options)


class Verdict(NamedTuple):
    allowed: bool
    remaining: int
    reset_s: int


class RateLimiter:
    """Counts in a moving window; several processes share the count where they share the storage."""

    def __init__(
        self,
        limit: str,
        storage: MemoryStorage | RedisStorage,
        *,
        refuse_when_down: bool,
        pause_s: float = 5,
    ) -> None:
        """
        Args:
            pause_s: for so long, a storage that did not answer is not asked again.
        """
        self.limit = parse(limit)
        self._amount, self._expiry_s = self.limit.amount, self.limit.get_expiry()
        self._key_for = lru_cache(maxsize=1024)(self.limit.key_for)
        self._storage = storage
        self._refuse_when_down = refuse_when_down
        self._pause_s = pause_s
        # The client's pool would open a connection for each request of a burst.
        self._slots = asyncio.Semaphore(_STORAGE_CONNECTIONS)
        self._down = False
        self._try_at = 0.0

    async def take(self, *client: str) -> Verdict | None:
        """Count a request, if it is allowed; None where the storage does not answer, and all is allowed.

        Raises:
            Overloaded: the storage does not answer, and nothing is allowed.
        """
        async with self._slots:
            if self._down:
                if time.monotonic() < self._try_at:
                    self._check_policy()
                    return None
                self._try_at = time.monotonic() + self._pause_s
            try:
                # As the library's moving window does, which makes up the key twice.
                key = self._key_for(*client)
                allowed = await self._storage.acquire_entry(key, self._amount, self._expiry_s)
                start, count = await self._storage.get_moving_window(key, self._amount, self._expiry_s)
            except (StorageError, OSError) as error:
                self._note_down(error)
                self._check_policy()
                return None
        self._note_up()
        reset_s = max(1, math.ceil(start + self._expiry_s - time.time()))
        return Verdict(allowed, max(0, self._amount - count) if allowed else 0, reset_s)

    def _check_policy(self) -> None:
        if self._refuse_when_down:
            raise Overloaded("the rate limit cannot be checked", retry_after_s=math.ceil(self._pause_s))

    def _note_down(self, error: Exception) -> None:
        self._try_at = time.monotonic() + self._pause_s
        if not self._down:
            fate = "refused" if self._refuse_when_down else "allowed without a limit"
            logger.error("RATE_LIMIT_STORAGE does not answer (%s): requests are %s", error, fate)
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
