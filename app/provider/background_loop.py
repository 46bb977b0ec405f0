"""An event loop for code that has none: many calls over one HTTP session, each with a future."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


@contextmanager
def background_loop(close: Callable[[], Awaitable[None]]) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop in a thread. Leaving cancels what still runs in it, closes, and ends the thread.

    Args:
        close: called in the loop, when nothing else runs in it any more.
    """
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        loop = runner.get_loop()
        # Not waited for when the process ends: whoever is interrupted twice may not get to leave.
        thread = threading.Thread(target=loop.run_forever, name="provider", daemon=True)
        thread.start()
        try:
            yield loop
        finally:
            try:
                asyncio.run_coroutine_threadsafe(_end(close), loop).result()
            finally:
                loop.call_soon_threadsafe(loop.stop)
                thread.join()


async def _end(close: Callable[[], Awaitable[None]]) -> None:
    running = asyncio.all_tasks() - {asyncio.current_task()}
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await close()
