"""What every request passes through."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.coarse_timer import CoarseTimer
from app.domain.errors import BodyTooLarge, RequestTimeout
from app.http.paths import is_work
from app.http.problems import as_internal_error, error_response
from app.observability.request_context import CLIENT_GONE, current_notes

# A request that has ended by then was not worth a task of its own, which takes 15 microseconds.
_UNWATCHED_S = 0.1


class InternalErrors:
    """Turns what nobody expected into a problem.

    Starlette's own handler raises it again, which makes the server log it twice and drop the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # the request's boundary: what got here, nobody else has answered
            if scope["type"] != "http" or current_notes().status is not None:
                raise
            await error_response(scope["path"], as_internal_error(error))(scope, receive, send)


class BodyLimit:
    """Reads the body before the application does, and no more of it than is allowed.

    Reading it here, chunked bodies too, keeps the error from being taken for a failure to parse.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._timer = CoarseTimer(timeout_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read_in_time(receive)
        except (BodyTooLarge, RequestTimeout) as error:
            # The rest of the body is still on its way: the connection cannot be used again.
            refusal = error_response(scope["path"], error, headers={"Connection": "close"})
            await refusal(scope, receive, send)
            return
        unread = [body]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, replay, send)

    async def _read_in_time(self, receive: Receive) -> Message:
        task = current_task()
        late = False

        def expire() -> None:
            nonlocal late
            late = True
            task.cancel()

        waiting = self._timer.start(expire)
        try:
            return await self._read(receive)
        except asyncio.CancelledError:
            if not late:
                raise
            task.uncancel()
            raise RequestTimeout(f"the body did not arrive within {self._timeout_s:g} s") from None
        finally:
            self._timer.stop(waiting)

    async def _read(self, receive: Receive) -> Message:
        """The whole body as one message, or what came instead of one."""
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


class CancelOnDisconnect:
    """Ends a request's work when its client goes away; a stream's and an ordinary one's alike.

    Below `BodyLimit`, which gives the whole body as one message.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._timer = CoarseTimer(_UNWATCHED_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_work(scope):
            await self._app(scope, receive, send)
            return
        notes = current_notes()
        unread = [await receive()]
        if unread[0]["type"] == "http.disconnect":
            notes.outcome = CLIENT_GONE
            return
        work = current_task()
        gone = False
        watchers: list[asyncio.Task[None]] = []

        async def watch() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            # A server says so too when the answer has been sent.
            if not notes.answered:
                gone = True
                work.cancel()

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        waiting = self._timer.start(lambda: watchers.append(asyncio.create_task(watch())))
        try:
            await self._app(scope, replay, send)
        except asyncio.CancelledError:
            if not gone:
                raise
            notes.outcome = CLIENT_GONE
            work.uncancel()
        finally:
            self._timer.stop(waiting)
            for watcher in watchers:
                watcher.cancel()


def current_task() -> asyncio.Task[Any]:
    """That of the request, which it ends with."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    return task
