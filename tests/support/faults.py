"""What can be wrong with a model provider, as answers of the faulty one."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from itertools import count

from tests.support.fake_provider import event
from tests.support.faulty_provider import Exchange, Fault

SECRET = "secret inner text"
_ERROR = b'{"error": {"message": "%b", "type": "server_error"}}' % SECRET.encode()

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
    """The good answer, a byte at a time."""

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
    """The first events of a good stream, of which number 0 only tells the role; then something else."""

    async def answer(exchange: Exchange) -> None:
        await _send_events(exchange, events)
        await then(exchange)

    return answer


async def _send_events(exchange: Exchange, events: int) -> None:
    await exchange.start()
    for each in exchange.good_events()[:events]:
        await exchange.send_chunk(each)


def when_told(then: Fault) -> Fault:
    """Wait for `go_on`: a reset, for one, takes along what the other side has not read yet."""

    async def answer(exchange: Exchange) -> None:
        await asyncio.wrap_future(exchange.provider.go_on)
        await then(exchange)

    return answer


def at_first(fault: Fault, times: int = 1) -> Fault:
    """Only the first requests fail."""
    return later(fault, after=0, times=times)


def later(fault: Fault, *, after: int, times: int = 1) -> Fault:
    """So many requests are answered well, then so many fail, and then all is well again."""
    numbers = count()

    async def answer(exchange: Exchange) -> None:
        await (fault(exchange) if after <= next(numbers) < after + times else exchange.answer_well())

    return answer


def status(number: int, retry_after: str | None = None) -> Fault:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(number, _ERROR, **({"retry_after": retry_after} if retry_after else {}))

    return answer


def endless_error(number: int, then: Fault) -> Fault:
    """A status whose text goes on, or hangs, where it might end."""

    async def answer(exchange: Exchange) -> None:
        await exchange.start(number, retry_after="0")
        await exchange.send_chunk(_ERROR)
        await then(exchange)

    return answer


def http_date(seconds_from_now: float) -> str:
    return formatdate(time.time() + seconds_from_now, usegmt=True)


async def redirect(exchange: Exchange) -> None:
    await exchange.answer(302, b"", location="/elsewhere")


def body(content: bytes, **headers: str) -> Fault:
    """An answer with status 200 and this body; to a request for a stream, as its event."""

    async def answer(exchange: Exchange) -> None:
        if exchange.streaming and not headers:
            await exchange.start()
            await exchange.send_chunk(b"data: " + content + b"\n\n")
            await exchange.end()
        else:
            await exchange.answer(200, content, **headers)

    return answer


def send_event(content: bytes) -> Fault:
    """In the middle of a stream, behind which it goes on as if nothing were wrong."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send_chunk(b"data: " + content + b"\n\n")
        await exchange.send_chunk(event("[DONE]"))
        await exchange.end()

    return answer


MALFORMED = b'{"choices": [{'
NOT_UTF8 = (
    b'{"choices": [{"index": 0, "delta": {"content": "\xff\xfe"}, "message": {"content": "\xff\xfe"}}]}'
)
ERROR_OBJECT = _ERROR


async def not_gzip(exchange: Exchange) -> None:
    """It says gzip, and is not."""
    await exchange.answer(200, exchange.good_answer(), content_encoding="gzip")


async def endless(exchange: Exchange) -> None:
    """A JSON text, or a line of a stream, without end."""
    await exchange.start()
    await exchange.send_chunk(b'data: {"choices": "' if exchange.streaming else b'{"data": "')
    await pour(_PART)(exchange)


def pour(part: bytes) -> Fault:
    """In a stream, without end."""

    async def answer(exchange: Exchange) -> None:
        for _ in range(ENDLESS_BYTES // len(part)):
            await exchange.send_chunk(part)
        await exchange.hang()

    return answer
