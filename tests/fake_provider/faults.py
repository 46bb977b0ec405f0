"""Faults of a provider: functions that answer an exchange, and functions that make or combine them."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from itertools import count
from typing import Any

from tests.fake_provider.answers import event
from tests.fake_provider.exchange import BeforePiece, Exchange, Fault

SECRET = "secret inner text"
ERROR_OBJECT = b'{"error": {"message": "%b", "type": "server_error"}}' % SECRET.encode()

# Where an endless answer gives up: whoever has taken in that much has no limit.
ENDLESS_BYTES = 256 * 1024 * 1024
_PART = b"a" * 65536


async def hang(exchange: Exchange) -> None:
    await exchange.hang()


async def reset(exchange: Exchange) -> None:
    exchange.reset()


async def cut(exchange: Exchange) -> None:
    exchange.cut()


async def end(exchange: Exchange) -> None:
    await exchange.end()


async def hang_in_body(exchange: Exchange) -> None:
    await _send_half(exchange)
    await exchange.hang()


async def reset_in_body(exchange: Exchange) -> None:
    await _send_half(exchange)
    exchange.reset()


async def cut_in_body(exchange: Exchange) -> None:
    await _send_half(exchange)
    exchange.cut()


async def _send_half(exchange: Exchange) -> None:
    answer = exchange.good_answer()
    await exchange.start(content_length=str(len(answer)))
    await exchange.send(answer[: len(answer) // 2])


def drip(pace_s: float) -> Fault:
    """Send the good answer a byte at a time."""

    async def answer(exchange: Exchange) -> None:
        content = exchange.good_answer()
        await exchange.start(content_length=str(len(content)))
        for byte in content:
            await exchange.send(bytes([byte]))
            await asyncio.sleep(pace_s)

    return answer


PING = b": ping\n\n"
EMPTY_DELTA = event('{"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": null}]}')


def after(events: int, then: Fault) -> Fault:
    """Send the first events of a good stream, of which number 0 only tells the role; then fail."""

    async def answer(exchange: Exchange) -> None:
        await _send_events(exchange, events)
        await then(exchange)

    return answer


async def _send_events(exchange: Exchange, events: int) -> None:
    await exchange.start()
    for each in exchange.good_events()[:events]:
        await exchange.send_chunk(each)


def when_told(then: Fault) -> Fault:
    """Fail when the test sets `go_on`: a reset takes along what the client has not read yet."""

    async def answer(exchange: Exchange) -> None:
        await asyncio.wrap_future(exchange.provider.go_on)
        await then(exchange)

    return answer


def stepwise(before_piece: BeforePiece) -> Fault:
    """Answer well; before each piece of a stream, wait for `before_piece` of its number."""

    async def answer(exchange: Exchange) -> None:
        await exchange.answer_well(before_piece)

    return answer


def held(released: threading.Event) -> Fault:
    """Answer well once the test sets `released`."""

    async def answer(exchange: Exchange) -> None:
        await _until(released)
        await exchange.answer_well()

    return answer


def held_stream(released: threading.Event, *, from_piece: int = 0) -> Fault:
    """Hold a good stream before a piece until the test sets `released`; other answers are not held."""

    async def before_piece(number: int) -> None:
        if number >= from_piece:
            await _until(released)

    return stepwise(before_piece)


async def _until(released: threading.Event) -> None:
    while not released.is_set():  # noqa: ASYNC110 - it is set in another thread
        await asyncio.sleep(0.01)


def at_first(fault: Fault, times: int = 1) -> Fault:
    """Let only the first requests fail."""
    return later(fault, after=0, times=times)


def later(fault: Fault, *, after: int, times: float = math.inf) -> Fault:
    """Answer so many requests well, let so many fail, and answer well again."""
    numbers = count()

    async def answer(exchange: Exchange) -> None:
        await (fault(exchange) if after <= next(numbers) < after + times else exchange.answer_well())

    return answer


def status(number: int, retry_after: str | None = None, *, message: str = SECRET) -> Fault:
    """Send an error in OpenAI's shape."""
    content = json.dumps({"error": {"message": message, "type": "server_error"}}).encode()

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(number, content, **({"retry_after": retry_after} if retry_after else {}))

    return answer


def distorted(distort: Callable[[dict[str, Any]], object]) -> Fault:
    """Send the good answer after `distort` has changed it in place; its embeddings are lists of numbers."""

    async def answer(exchange: Exchange) -> None:
        content = json.loads(exchange.good(encoding_format="float").body)
        distort(content)
        # Python's own encoder, because it writes NaN, as careless servers do.
        await exchange.answer(200, json.dumps(content).encode())

    return answer


def endless_error(number: int, then: Fault) -> Fault:
    """Send an error whose text goes on, or hangs, where it might end."""

    async def answer(exchange: Exchange) -> None:
        await exchange.start(number, retry_after="0")
        await exchange.send_chunk(ERROR_OBJECT)
        await then(exchange)

    return answer


def http_date(seconds_from_now: float) -> str:
    return formatdate(time.time() + seconds_from_now, usegmt=True)


async def redirect(exchange: Exchange) -> None:
    await exchange.answer(302, b"", location="/elsewhere")


def body(content: bytes, **headers: str) -> Fault:
    """Send these bytes with status 200: as the body or, where a stream is asked for, as its event."""

    async def answer(exchange: Exchange) -> None:
        if exchange.streaming and not headers:
            await exchange.start()
            await exchange.send_chunk(b"data: " + content + b"\n\n")
            await exchange.end()
        else:
            await exchange.answer(200, content, **headers)

    return answer


def send_event(content: bytes) -> Fault:
    """Send an event in the middle of a stream, and then its regular end."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send_chunk(b"data: " + content + b"\n\n")
        await exchange.send_chunk(event("[DONE]"))
        await exchange.end()

    return answer


MALFORMED = b'{"choices": [{'
NOT_UTF8 = (
    b'{"choices": [{"index": 0, "delta": {"content": "\xff\xfe"}, "message": {"content": "\xff\xfe"}}]}'
)


async def not_gzip(exchange: Exchange) -> None:
    """Send the good answer as gzip, which it is not."""
    await exchange.answer(200, exchange.good_answer(), content_encoding="gzip")


async def endless(exchange: Exchange) -> None:
    """Send a JSON text, or a line of a stream, without end."""
    await exchange.start()
    await exchange.send_chunk(b'data: {"choices": "' if exchange.streaming else b'{"data": "')
    await pour(_PART)(exchange)


def pour(part: bytes) -> Fault:
    """Send the same part of a body without end."""

    async def answer(exchange: Exchange) -> None:
        for _ in range(ENDLESS_BYTES // len(part)):
            await exchange.send_chunk(part)
        await exchange.hang()

    return answer
