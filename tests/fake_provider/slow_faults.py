"""Faults of a provider that is too slow, on a clock that the test advances instead of waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.fake_provider.exchange import Exchange, Fault
from tests.support.moved_clock import Clock

STEPS = 8

Step = Callable[[], Awaitable[None]]
Slow = Callable[[Exchange, Step], Awaitable[None]]


def taking(seconds: float, clock: Clock, slow: Slow) -> Fault:
    """Make a fault that takes so much time, in equal steps, and then hangs forever.

    Args:
        clock: the clock of the provider's client.
    """

    async def step() -> None:
        await asyncio.wrap_future(clock.move(seconds / STEPS))

    async def answer(exchange: Exchange) -> None:
        await slow(exchange, step)
        await exchange.hang()

    return answer


def late(seconds: float, clock: Clock, fault: Fault) -> Fault:
    """Delay a fault by so much time."""

    async def answer(exchange: Exchange) -> None:
        await asyncio.wrap_future(clock.move(seconds))
        await fault(exchange)

    return answer


async def hang(_: Exchange, step: Step) -> None:
    for _step in range(STEPS):
        await step()


async def hang_in_body(exchange: Exchange, step: Step) -> None:
    content = await _start(exchange)
    await exchange.send(content[: len(content) // 2])
    await hang(exchange, step)


async def byte_by_byte(exchange: Exchange, step: Step) -> None:
    """Send the beginning of the good answer, one byte per step."""
    content = await _start(exchange)
    for byte in content[:STEPS]:
        await exchange.send(bytes([byte]))
        await step()


async def _start(exchange: Exchange) -> bytes:
    content = exchange.good_answer()
    await exchange.start(content_length=str(len(content)))
    return content


def again_and_again(data: bytes) -> Slow:
    """Send data in a stream, once per step, that does not advance the answer."""

    async def answer(exchange: Exchange, step: Step) -> None:
        for _ in range(STEPS):
            await exchange.send_chunk(data)
            await step()

    return answer
