"""Timers that are hardly ever due, for every request: one of the event loop's each takes 5 microseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context

# Of the delay: how late one may be.
_TICKS = 10


class CoarseTimer:
    """Calls back who has not stopped it after the delay, or a tenth of it later; for one event loop.

    While nobody waits, nothing runs.
    """

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        # In the order of their ends, since all wait for as long.
        self._waiting: dict[int, tuple[float, Callable[[], None]]] = {}
        self._started = 0
        self._ticking = False

    def start(self, callback: Callable[[], None]) -> int:
        """Gives what `stop` takes."""
        loop = asyncio.get_running_loop()
        self._started += 1
        self._waiting[self._started] = (loop.time() + self._delay_s, callback)
        if not self._ticking:
            self._ticking = True
            self._tick_after(self._delay_s, loop)
        return self._started

    def stop(self, number: int) -> None:
        """Nothing happens where it was called back."""
        self._waiting.pop(number, None)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        while self._waiting:
            number, (end, callback) = next(iter(self._waiting.items()))
            if end > now:
                break
            del self._waiting[number]
            callback()
        self._ticking = bool(self._waiting)
        if self._ticking:
            self._tick_after(self._delay_s / _TICKS, loop)

    def _tick_after(self, delay_s: float, loop: asyncio.AbstractEventLoop) -> None:
        # Not in the context of the request that happens to be the first.
        loop.call_later(delay_s, self._tick, loop, context=Context())
