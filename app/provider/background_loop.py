"""An event loop in a thread, for synchronous code that makes many calls over one HTTP session."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


@contextmanager
def background_loop(close: Callable[[], Awaitable[None]]) -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread; on exit, cancel its tasks, call `close` and end the thread.

    Args:
        close: called in the loop once all of its tasks have ended.
    """
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        loop = runner.get_loop()
        # A daemon, so that it cannot keep the process alive: a second interrupt may skip the cleanup below.
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
