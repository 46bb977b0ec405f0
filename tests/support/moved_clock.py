"""A server in a thread whose event loop's clock a test can advance, so that minutes pass at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from tests.support.serving import serve_in_thread


class Clock:
    """The clock of an event loop; it also runs by itself, so a limit must be far longer than a test takes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._real_s = loop.time
        self._moved_s = 0.0
        loop.time = self._now  # type: ignore[method-assign] # timers of all libraries ask it

    def _now(self) -> float:
        return self._real_s() + self._moved_s

    def move(self, seconds: float) -> Future[None]:
        """Advance the clock, from any thread; the future is done when all callbacks due by then have run."""
        done: Future[None] = Future()
        # The future completes even if its waiter was cancelled.
        done.set_running_or_notify_cancel()

        def move() -> None:
            self._moved_s += seconds
            # Due callbacks run in the next iteration of the loop.
            self.loop.call_soon(self.loop.call_soon, done.set_result, None)

        self.loop.call_soon_threadsafe(move)
        return done


@contextmanager
def serve_with_clock(app: ASGIApp) -> Iterator[tuple[str, Clock]]:
    """Serve an application like `serve_in_thread`, and yield its address and its clock."""
    clock: Future[Clock] = Future()

    async def seen(scope: Scope, receive: Receive, send: Send) -> None:
        if not clock.done():
            clock.set_result(Clock(asyncio.get_running_loop()))
        await app(scope, receive, send)

    with serve_in_thread(seen) as url:
        yield url, clock.result()
