"""Server-sent events, and the response that streams them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, Self

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.domain.answer import Event
from app.domain.errors import IndexNotReady, RagError
from app.http.problems import as_internal_error, log_error
from app.observability.request_context import CLIENT_GONE, current_context

_DONE = b"data: [DONE]\n\n"
_COMMENT = b": keep-alive\n\n"
# Proxies such as nginx would collect events otherwise.
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


SendBody = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True)
class StreamTimes:
    """The time limits of a stream's silence, and of its client's.

    Attributes:
        keepalive_s: the time without an event after which a comment is sent, because a proxy closes a
            connection that is silent for long: nginx after 60 seconds by default.
        stalled_s: the time after which a client that takes nothing is given up.
    """

    keepalive_s: float = 15.0
    stalled_s: float = 60.0


class ClientStalled(Exception):
    """The client keeps the connection open, but reads nothing more."""


def encode_event(data: bytes, name: str = "") -> bytes:
    """Return an event with one line of data, which JSON is."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data) if name else b"data: %s\n\n" % data


class EventEncoder(Protocol):
    """Encodes the events of one answer, in their order, as one kind of client reads them."""

    def encode(self, event: Event) -> bytes:
        """Return one or more server-sent events."""
        ...

    def encode_error(self, error: RagError) -> bytes:
        """Return the event that ends the stream in place of `[DONE]`."""
        ...


class EventStream(Response):
    """Sends the events of an answer as they come, and a comment now and then while none comes.

    Args:
        first: the first of the events, which has come already.
        events: the others; closed when the stream ends, however it does.
    """

    media_type = "text/event-stream"

    def __init__(
        self, first: Event, events: AsyncGenerator[Event], encoder: EventEncoder, times: StreamTimes
    ) -> None:
        super().__init__(headers=_HEADERS)
        # The length is not known. Starlette has set that of an empty body.
        del self.headers["content-length"]
        self._first = first
        self._events = events
        self._encoder = encoder
        self._times = times
        self._sent_at = 0.0

    @classmethod
    async def begin(cls, events: AsyncGenerator[Event], encoder: EventEncoder, times: StreamTimes) -> Self:
        """Wait for the first event, so that what fails before it is an ordinary HTTP error."""
        return cls(await anext(events), events, encoder, times)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_body(body: bytes) -> None:
            self._sent_at = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(self._times.stalled_s):
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            except TimeoutError:
                raise ClientStalled from None

        async with aclosing(self._events):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                async with self._kept_alive(send_body):
                    await self._send_events(send_body)
            except ClientStalled:
                # Without an end of the body: the server closes the connection.
                current_context().outcome = CLIENT_GONE
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(self, send_body: SendBody) -> None:
        try:
            await send_body(self._encoder.encode(self._first))
            async for event in self._events:
                await send_body(self._encoder.encode(event))
            await send_body(_DONE)
        except RagError as error:
            log_error(error)
            await send_body(self._encode_end(error))
        except asyncio.CancelledError:
            # The client is gone, and this goes nowhere; or the server stops, and it has to be told.
            await send_body(self._encode_end(IndexNotReady("the server is stopping")))
            raise
        except ClientStalled:
            raise
        except Exception as error:  # noqa: BLE001 - the request's boundary: no status can be sent any more
            await send_body(self._encode_end(as_internal_error(error)))

    def _encode_end(self, error: RagError) -> bytes:
        current_context().outcome = error.code
        return self._encoder.encode_error(error)

    @asynccontextmanager
    async def _kept_alive(self, send_body: SendBody) -> AsyncIterator[None]:
        """Send a comment after each `keepalive_s` without an event. Its own task costs tokens nothing."""
        loop = asyncio.get_running_loop()

        async def keep_alive() -> None:
            while True:
                silent_s = loop.time() - self._sent_at
                if silent_s >= self._times.keepalive_s:
                    await send_body(_COMMENT)
                else:
                    await asyncio.sleep(self._times.keepalive_s - silent_s)

        self._sent_at = loop.time()
        task = asyncio.create_task(keep_alive())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
