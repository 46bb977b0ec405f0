"""Server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.domain.errors import IndexNotReady, RagError
from app.http.problems import as_internal_error, log_error
from app.observability.request_context import CLIENT_GONE, current_context

KEEPALIVE_S = 15.0
# A client that takes nothing for so long is given up.
STALLED_S = 60.0

DONE = b"data: [DONE]\n\n"
_COMMENT = b": keep-alive\n\n"
# Proxies such as nginx would collect events otherwise.
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


SendBody = Callable[[bytes], Awaitable[None]]


class ClientStalled(Exception):
    """It keeps the connection and takes nothing more."""


def event(data: bytes, name: str = "") -> bytes:
    """An event of one line of data, which JSON is."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data) if name else b"data: %s\n\n" % data


class EventStream(Response):
    """Sends events as they come, and something now and then while none comes.

    Args:
        events: encoded, the last one being `DONE`; closed when the stream ends, however it does.
        failed: encodes the error that ends the stream instead of `DONE`.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], failed: Callable[[RagError], bytes]) -> None:
        super().__init__(headers=_HEADERS)
        # The length is not known. Starlette has set that of an empty body.
        del self.headers["content-length"]
        self._events = events
        self._failed = failed
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_body(body: bytes) -> None:
            self._sent_at = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(STALLED_S):
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
            async for part in self._events:
                await send_body(part)
        except RagError as error:
            log_error(error)
            await send_body(self._encode(error))
        except asyncio.CancelledError:
            # The client is gone, and this goes nowhere; or the server stops, and it has to be told.
            await send_body(self._encode(IndexNotReady("the server is stopping")))
            raise
        except ClientStalled:
            raise
        except Exception as error:  # noqa: BLE001 - the request's boundary: no status can be sent any more
            await send_body(self._encode(as_internal_error(error)))

    def _encode(self, error: RagError) -> bytes:
        current_context().outcome = error.code
        return self._failed(error)

    @asynccontextmanager
    async def _kept_alive(self, send_body: SendBody) -> AsyncIterator[None]:
        """Send a comment after each `KEEPALIVE_S` without an event. Its own task costs tokens nothing."""
        loop = asyncio.get_running_loop()

        async def keep_alive() -> None:
            while True:
                silent_s = loop.time() - self._sent_at
                if silent_s >= KEEPALIVE_S:
                    await send_body(_COMMENT)
                else:
                    await asyncio.sleep(KEEPALIVE_S - silent_s)

        self._sent_at = loop.time()
        task = asyncio.create_task(keep_alive())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
