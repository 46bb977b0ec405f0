"""Cancel the work for clients that disconnect."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.middleware.request_task import current_task
from app.http.paths import is_work
from app.observability.request_context import CLIENT_GONE, current_context

# Shorter requests are not watched, since the task to watch one takes 15 microseconds.
_UNWATCHED_S = 0.1


class CancelOnDisconnect:
    """Cancels the work on a request, streamed or not, when its client disconnects.

    It must be inside `BodyLimit`, which passes the whole body on as one message.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_work(scope):
            await self._app(scope, receive, send)
            return
        context = current_context()
        unread = [await receive()]
        if unread[0]["type"] == "http.disconnect":
            context.outcome = CLIENT_GONE
            return
        work = current_task()
        gone = False
        watchers: list[asyncio.Task[None]] = []

        async def watch() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            # The server also sends this message after a complete answer.
            if not context.answered:
                gone = True
                work.cancel()

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        start_watching = asyncio.get_running_loop().call_later(
            _UNWATCHED_S, lambda: watchers.append(asyncio.create_task(watch()))
        )
        try:
            await self._app(scope, replay, send)
        except asyncio.CancelledError:
            if not gone:
                raise
            context.outcome = CLIENT_GONE
            work.uncancel()
        finally:
            start_watching.cancel()
            for watcher in watchers:
                watcher.cancel()
