"""How often a client may ask."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

from limits import parse
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.client_address import ClientAddress
from app.errors import Overloaded, RagError, RateLimited
from app.middleware import is_work
from app.problems import error_response

logger = logging.getLogger(__name__)

_SWEEP_EACH_S = 1.0
# A Redis that works answers within a few milliseconds.
_STORAGE_TIMEOUT_S = 0.25
_STORAGE_CONNECTIONS = 16


class _Memory(MemoryStorage):
    """Forgets what is over once a second: the stock one does so, in a thread, with each request.

    With it, a request takes 81 µs of processor time, and 21 without.
    """

    _sweep_at = 0.0

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_EACH_S
            self.timer = None
        elif self.timer is None or self.timer.done():
            # As long as it is there and not done, no sweep is started.
            self.timer = asyncio.get_running_loop().create_future()  # type: ignore[assignment]
        return await super().acquire_entry(key, limit, expiry, amount)


def make_storage(address: str) -> Storage:
    """
    Args:
        address: `memory://`, or of a Redis. Nothing is connected yet.
    """
    if address.startswith("memory:"):
        return _Memory()
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


@dataclass(frozen=True, slots=True)
class Verdict:
    allowed: bool
    remaining: int
    reset_s: int


class RateLimits:
    """Counts in a moving window; several processes share the count where they share the storage."""

    def __init__(self, limit: str, storage: Storage, *, refuse_when_down: bool, pause_s: float = 5) -> None:
        """
        Args:
            pause_s: for so long, a storage that did not answer is not asked again.
        """
        self.limit = parse(limit)
        self._storage = storage
        self._window = MovingWindowRateLimiter(storage)
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
                allowed = await self._window.hit(self.limit, *client)
                stats = await self._window.get_window_stats(self.limit, *client)
            except (StorageError, OSError) as error:
                self._note_down(error)
                self._check_policy()
                return None
        self._note_up()
        reset_s = max(1, math.ceil(stats.reset_time - time.time()))
        return Verdict(allowed, max(0, stats.remaining) if allowed else 0, reset_s)

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

    async def close(self) -> None:
        if isinstance(self._storage, RedisStorage):
            bridge: Any = self._storage.bridge
            await bridge.get_connection().aclose()


class RateLimit:
    """Refuses work beyond the limit: by the key's name, or by address where there are no keys."""

    def __init__(self, app: ASGIApp, limits: RateLimits, address_of: ClientAddress) -> None:
        self._app = app
        self._limits = limits
        self._address_of = address_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_work(scope):
            await self._app(scope, receive, send)
            return
        name = scope.get("state", {}).get("client")
        client = ("key", name) if name else ("address", self._address_of(scope))
        try:
            verdict = await self._limits.take(*client)
        except Overloaded as error:
            await error_response(scope["path"], error)(scope, receive, send)
            return
        if verdict is None:
            await self._app(scope, receive, send)
            return
        headers = self._headers(verdict)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        app = self._app if verdict.allowed else error_response(scope["path"], self._refusal(verdict))
        await app(scope, receive, send_with_headers)

    def _headers(self, verdict: Verdict) -> list[tuple[bytes, bytes]]:
        return [
            (b"ratelimit-limit", b"%d" % self._limits.limit.amount),
            (b"ratelimit-remaining", b"%d" % verdict.remaining),
            (b"ratelimit-reset", b"%d" % verdict.reset_s),
        ]

    def _refusal(self, verdict: Verdict) -> RagError:
        return RateLimited(f"more than {self._limits.limit}", retry_after_s=verdict.reset_s)
