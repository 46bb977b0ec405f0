"""Timers that are shared by many who hardly ever wait until they are due."""

from __future__ import annotations

import asyncio
from functools import partial

from app.http.middleware.coarse_timer import CoarseTimer


def test_who_has_not_stopped_is_called_back_once_in_order() -> None:
    async def run() -> list[int]:
        timer, called, done = CoarseTimer(0.02), list[int](), asyncio.Event()
        waiting = [timer.start(partial(called.append, number)) for number in range(6)]
        for number in (1, 4):
            timer.stop(waiting[number])
        timer.start(done.set)
        await done.wait()
        timer.stop(waiting[0])  # over already
        done.clear()
        timer.start(partial(called.append, 6))
        timer.start(done.set)
        await done.wait()
        return called

    assert asyncio.run(asyncio.wait_for(run(), 30)) == [0, 2, 3, 5, 6]


def test_one_that_is_started_later_ends_later() -> None:
    """Not with the first, for which there is a timer of the loop's."""

    async def run() -> float:
        loop, timer, done = asyncio.get_running_loop(), CoarseTimer(0.1), asyncio.Event()
        timer.start(lambda: None)
        await asyncio.sleep(0.08)
        started = loop.time()
        timer.start(done.set)
        await done.wait()
        return loop.time() - started

    assert asyncio.run(asyncio.wait_for(run(), 30)) >= 0.1


def test_a_callback_may_start_another() -> None:
    async def run() -> None:
        timer, done = CoarseTimer(0.01), asyncio.Event()

        def start_another() -> None:
            timer.start(done.set)

        timer.start(start_another)
        await done.wait()

    asyncio.run(asyncio.wait_for(run(), 30))
