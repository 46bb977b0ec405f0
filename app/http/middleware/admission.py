"""Limit the number of requests in progress, and the pace at which they begin."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from app.domain.errors import Overloaded
from app.http.paths import is_work
from app.http.problems import error_response

# The share of a request's cost that has to pass before the next request begins. At 1, processor time is left
# unused, since work in batches is cheaper; at 0.5, batches delay other requests: see `Pace`.
_SHARE = 0.7
_WEIGHT = 0.15
_MAX_COST_S = 0.02
# Reading a thread's processor time is a system call, so it is read once for several requests.
_MEASURED_TOGETHER = 8
# Timers have a resolution of a millisecond, so shorter waits are left out.
_SHORTEST_S = 0.0005
# A longer interval includes processor time that was not spent on requests.
_TOGETHER_S = 0.5


class Pace:
    """Lets requests begin one by one, about as fast as they can be completed.

    Requests that arrive together would otherwise stay together: the provider takes equally long for each, and
    all of them resume in one turn of the event loop, which is idle in between. With 100 users and a provider
    that takes 100 + 500 ms, p99 is 628 ms instead of 690 ms; with 1,000 users and two workers, a probe waits
    for at most 45 ms instead of 186 ms.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._cost_s = 0.0
        self._next_at = 0.0
        self._begun = 0
        self._measured_at = 0.0
        self._cpu_s = 0.0

    async def wait(self) -> None:
        """Wait for the turn of this request, so that earlier ones proceed first."""
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
        """Update the average cost of a request: the processor time of this thread per request that began."""
        self._begun += 1
        if self._begun % _MEASURED_TOGETHER:
            return
        cpu_s = time.thread_time()
        if now - self._measured_at < _TOGETHER_S:
            spent_s = min((cpu_s - self._cpu_s) / _MEASURED_TOGETHER, _MAX_COST_S)
            self._cost_s += _WEIGHT * (spent_s - self._cost_s)
        self._measured_at, self._cpu_s = now, cpu_s


class Level(Protocol):
    """A gauge of a number of requests."""

    def inc(self) -> None: ...

    def dec(self) -> None: ...


class Admission:
    """Limits the requests in progress: a number of further ones wait, and the rest are refused at once.

    Requests that do no work, such as probes, always pass. Each worker counts its own requests.

    Args:
        queue_s: the time that a request waits for its turn before it is refused.
        in_flight, queued: gauges of the requests in progress, and of those that wait.
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
            Overloaded: all slots are taken, and the queue is full or `QUEUE_S` seconds have passed.
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
