"""Limit a request's body in size and in time."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.domain.errors import BodyTooLarge, RequestTimeout
from app.http.problems import error_response


class BodyLimit:
    """Reads the body before the application does, and no more of it than is allowed.

    If the limit took effect while the application reads, FastAPI would report an error of parsing.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read_in_time(receive)
        except (BodyTooLarge, RequestTimeout) as error:
            # The rest of the body is still being sent, so the connection cannot be used again.
            refusal = error_response(scope["path"], error, headers={"Connection": "close"})
            await refusal(scope, receive, send)
            return
        unread = [body]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, replay, send)

    async def _read_in_time(self, receive: Receive) -> Message:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._read(receive)
        except TimeoutError:
            raise RequestTimeout(f"the body did not arrive within {self._timeout_s:g} s") from None

    async def _read(self, receive: Receive) -> Message:
        """Return the whole body as one message, or the message that came instead of it."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return message
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_bytes:
                raise BodyTooLarge(f"the body is larger than MAX_BODY_BYTES ({self._max_bytes} bytes)")
            if not message.get("more_body", False):
                return {"type": "http.request", "body": b"".join(parts), "more_body": False}
