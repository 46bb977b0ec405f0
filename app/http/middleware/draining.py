"""Drain a stopping server: refuse new requests, let others finish for a while, and cancel the rest."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from starlette.types import ASGIApp, Receive, Scope, Send

from app.domain.errors import IndexNotReady
from app.http.middleware.request_task import current_task
from app.http.paths import is_probe
from app.http.problems import error_response
from app.observability.request_context import current_context

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# The time for cancelled requests to tell their clients.
_CUT_GRACE_S = 2.0
_RETRY_AFTER_S = 1


class Drain:
    """The phase between the signal that stops a server and the server's own stop, which closes its sockets.

    The server keeps listening until all requests in progress have ended, so that new requests and probes are
    answered, and clients turn to another server.

    Args:
        timeout_s: requests that have not ended by then are cancelled.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._requests: set[asyncio.Task[None]] = set()
        self._cut: set[asyncio.Task[None]] = set()
        self._hurried = asyncio.Event()
        self.began = False

    @contextmanager
    def on_signals(self, stop: Callable[[], None]) -> Iterator[None]:
        """Drain on SIGTERM or SIGINT before the server is stopped; to be used in its lifespan.

        A second SIGINT, as from somebody who waits at a terminal, cancels all requests at once. A second
        SIGTERM changes nothing, since a worker gets one from its parent, too.

        Args:
            stop: called when the drain begins.
        """
        stop_server = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread() or not callable(stop_server):
            yield  # a server in a thread gets no signals, and is stopped by other means
            return
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        async def drain() -> None:
            stop()
            await self._drain()
            # Always SIGTERM, even after SIGINT, which would end the process with a traceback.
            stop_server(signal.SIGTERM, None)

        def begin(number: int) -> None:
            if not self.began:
                self.began = True
                tasks.add(loop.create_task(drain()))
            elif number == signal.SIGINT:
                self._hurried.set()

        def handle(number: int, _: FrameType | None) -> None:
            loop.call_soon_threadsafe(begin, number)

        for number in _SIGNALS:
            signal.signal(number, handle)
        yield

    def enter(self) -> asyncio.Task[None]:
        """Register the current task as a request to wait for, and return it."""
        request = current_task()
        self._requests.add(request)
        return request

    def leave(self, request: asyncio.Task[None]) -> None:
        self._requests.discard(request)

    def has_cut(self, request: asyncio.Task[None]) -> bool:
        """Return whether the drain has cancelled a request, and if so, clear the cancellation."""
        if request not in self._cut:
            return False
        request.uncancel()
        return True

    async def _drain(self) -> None:
        if not self._requests:
            return
        logger.info("stopping: %d requests are in progress", len(self._requests))
        ended = asyncio.create_task(asyncio.wait(set(self._requests)))
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait({ended, hurried}, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        hurried.cancel()
        self._cut = set(self._requests)
        if self._cut:
            logger.warning("stopping: %d requests did not end in time, and are cancelled", len(self._cut))
            for task in self._cut:
                task.cancel()
            await asyncio.wait(self._cut, timeout=_CUT_GRACE_S)


class RefuseWhenDraining:
    """Refuses new requests with 503 while the server drains."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        drain = self._drain
        if is_probe(scope):
            await self._app(scope, receive, send)
        elif drain.began:
            await _refusal(scope)(scope, receive, send)
        else:
            request = drain.enter()
            try:
                await self._app(scope, receive, send)
            except asyncio.CancelledError:
                if not drain.has_cut(request):
                    raise
                if current_context().status is not None:  # a stream, whose last event has given the reason
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                else:
                    await _refusal(scope)(scope, receive, send)
            finally:
                drain.leave(request)


def _refusal(scope: Scope) -> ASGIApp:
    error = IndexNotReady("the server is stopping", retry_after_s=_RETRY_AFTER_S)
    return error_response(scope["path"], error)
