"""A server in a thread, and the clock of its event loop, which a test moves on: minutes pass at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from tests.support.serving import serve_in_thread


class Clock:
    """Of an event loop. It goes by itself, too, so that a limit should be far longer than a test takes.

    Attributes:
        loop: whose it is.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._real_s = loop.time
        self._moved_s = 0.0
        loop.time = self._now  # type: ignore[method-assign] # timers of all libraries ask it

    def _now(self) -> float:
        return self._real_s() + self._moved_s

    def move(self, seconds: float) -> Future[None]:
        """From any thread; done when what is due by then has been called."""
        done: Future[None] = Future()
        # Whoever waits for it may be cancelled, and it is done all the same.
        done.set_running_or_notify_cancel()

        def move() -> None:
            self._moved_s += seconds
            # What is due is called in the next turn of the loop.
            self.loop.call_soon(self.loop.call_soon, done.set_result, None)

        self.loop.call_soon_threadsafe(move)
        return done


@contextmanager
def serve_with_clock(app: ASGIApp) -> Iterator[tuple[str, Clock]]:
    """Serve as `serve_in_thread` does; gives the address, and the clock."""
    clock: Future[Clock] = Future()

    async def seen(scope: Scope, receive: Receive, send: Send) -> None:
        if not clock.done():
            clock.set_result(Clock(asyncio.get_running_loop()))
        await app(scope, receive, send)

    with serve_in_thread(seen) as url:
        yield url, clock.result()
