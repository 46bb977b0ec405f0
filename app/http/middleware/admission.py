"""How many requests are in work at once, and how fast they follow each other."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from app.domain.errors import Overloaded
from app.http.paths import is_work
from app.http.problems import error_response

# Of what a request costs, how much has to pass before the next begins. At 1, processor time is left unused,
# since work that comes in batches is cheaper; at 0.5, the batches are felt: see `Pace`.
_SHARE = 0.7
_WEIGHT = 0.15
_MAX_COST_S = 0.02
# The clock of a thread's processor time is a system call.
_MEASURED_TOGETHER = 8
# Timers tick in milliseconds: what costs less is not worth to wait for.
_SHORTEST_S = 0.0005
# Over a longer time, other things than requests took it.
_TOGETHER_S = 0.5


class Pace:
    """Lets requests begin one by one, about as fast as they can be finished.

    Requests that come together would stay together: the provider keeps each for as long, and then all of them
    want to go on in one turn of the event loop, which is idle in between. With 100 users and a provider of
    100 + 500 ms, p99 is 628 ms instead of 690; with 1,000 users and two workers, a probe waits for 45 ms at
    most instead of 186.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._cost_s = 0.0
        self._next_at = 0.0
        self._begun = 0
        self._measured_at = 0.0
        self._cpu_s = 0.0

    async def wait(self) -> None:
        """Wait for the turn of this request; what has begun before goes on first."""
        loop = asyncio.get_running_loop()
        if self._turn.locked() or self._next_at - loop.time() > _SHORTEST_S:
            async with self._turn:
                await asyncio.sleep(max(0.0, self._next_at - loop.time()))
                self._begin(loop.time())
        else:
            self._begin(loop.time())

    def _begin(self, now: float) -> None:
        self._measure(now)
        self._next_at = now + _SHARE * self._cost_s

    def _measure(self, now: float) -> None:
        """A request costs, on average, the processor time of this thread between two beginnings."""
        self._begun += 1
        if self._begun % _MEASURED_TOGETHER:
            return
        cpu_s = time.thread_time()
        if now - self._measured_at < _TOGETHER_S:
            spent_s = min((cpu_s - self._cpu_s) / _MEASURED_TOGETHER, _MAX_COST_S)
            self._cost_s += _WEIGHT * (spent_s - self._cost_s)
        self._measured_at, self._cpu_s = now, cpu_s


class Level(Protocol):
    """Shows how many there are."""

    def inc(self) -> None: ...

    def dec(self) -> None: ...


class Admission:
    """Lets so many requests in at once; some more wait for their turn, the rest are refused at once.

    What only asks how things are, such as a probe, is always let in. Counted per worker.

    Args:
        queue_s: the time that a request waits for its turn before it is refused.
        in_flight, queued: are shown how many requests are in work, and how many wait for that.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_concurrency: int,
        max_queue: int,
        queue_s: float,
        in_flight: Level,
        queued: Level,
    ) -> None:
        self._app = app
        self._in_flight = in_flight
        self._queued = queued
        self._slots = asyncio.Semaphore(max_concurrency)
        self._max_concurrency = max_concurrency
        self._max_queue = max_queue
        self._queue_s = queue_s
        self._waiting = 0
        self._pace = Pace()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_work(scope):
            await self._app(scope, receive, send)
            return
        try:
            await self._enter()
        except Overloaded as error:
            await error_response(scope["path"], error)(scope, receive, send)
            return
        self._in_flight.inc()
        try:
            await self._pace.wait()
            await self._app(scope, receive, send)
        finally:
            self._in_flight.dec()
            self._slots.release()

    async def _enter(self) -> None:
        """Take a slot.

        Raises:
            Overloaded: there is none, and too many wait already, or this one has waited for long enough.
        """
        if not self._slots.locked():
            await self._slots.acquire()
            return
        if self._waiting >= self._max_queue:
            raise Overloaded(
                f"{self._max_concurrency} requests are being answered, and {self._waiting} wait",
                retry_after_s=1,
            )
        self._waiting += 1
        self._queued.inc()
        try:
            async with asyncio.timeout(self._queue_s):
                await self._slots.acquire()
        except TimeoutError:
            raise Overloaded(f"no request ended within {self._queue_s:g} s", retry_after_s=1) from None
        finally:
            self._waiting -= 1
            self._queued.dec()
