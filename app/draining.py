"""The end of a server: what comes is refused, what is in work may finish for a while, the rest is cut."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import IndexNotReady
from app.problems import error_response

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# How a server is, its operators want to know to the end.
_OPEN_PATHS = frozenset({"/health", "/health/live", "/metrics"})
# For what was cut to tell its clients.
_CUT_GRACE_S = 2.0
_RETRY_AFTER_S = 1


class Drain:
    """Between the signal that stops a server and the server's own stop, which closes its sockets.

    Until all requests in work have ended, it goes on listening: whoever comes is told to go elsewhere,
    probes above all.

    Args:
        timeout_s: what has not ended by then is cut.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._requests: set[asyncio.Task[None]] = set()
        self._cut: set[asyncio.Task[None]] = set()
        self._hurried = asyncio.Event()
        self.began = False

    @contextmanager
    def on_signals(self, stop: Callable[[], None]) -> Iterator[None]:
        """Drain when told to stop, and only then let the server know. For its lifespan.

        A second SIGINT, as from somebody who waits at a terminal, cuts at once. A second SIGTERM says what is
        known: a worker gets one from its parent, too.

        Args:
            stop: called when it begins.
        """
        stop_server = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread() or not callable(stop_server):
            yield  # a server in a thread hears no signals, and is stopped otherwise
            return
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        async def drain() -> None:
            stop()
            await self._drain()
            # Whatever it was that came: this one ends a process without a trace.
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

    def enter(self) -> None:
        """The current task is a request, which is to finish first."""
        self._requests.add(_current_task())

    def leave(self) -> None:
        self._requests.discard(_current_task())

    def has_cut(self) -> bool:
        """Whether it was this that cancelled the current task; asked once, by who ends its request."""
        task = _current_task()
        if task not in self._cut:
            return False
        task.uncancel()
        return True

    async def _drain(self) -> None:
        if not self._requests:
            return
        logger.info("stopping: %d requests are in work", len(self._requests))
        ended = asyncio.create_task(_wait(set(self._requests)))
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait({ended, hurried}, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        hurried.cancel()
        self._cut = set(self._requests)
        if self._cut:
            logger.warning("stopping: %d requests did not end in time, and are cut", len(self._cut))
            for task in self._cut:
                task.cancel()
            await asyncio.wait(self._cut, timeout=_CUT_GRACE_S)


def _current_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    return task


async def _wait(tasks: set[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


class RefuseWhenDraining:
    """Answers what comes too late with 503, and closes the connection after each answer."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        drain, started = self._drain, False

        async def send_last(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if drain.began:
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        if scope["path"] in _OPEN_PATHS:
            await self._app(scope, receive, send_last)
        elif drain.began:
            await _refusal(scope)(scope, receive, send_last)
        else:
            drain.enter()
            try:
                await self._app(scope, receive, send_last)
            except asyncio.CancelledError:
                if not drain.has_cut():
                    raise
                if started:  # a stream, which has told the reason by an event
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                else:
                    await _refusal(scope)(scope, receive, send_last)
            finally:
                drain.leave()


def _refusal(scope: Scope) -> ASGIApp:
    error = IndexNotReady("the server is stopping", retry_after_s=_RETRY_AFTER_S)
    return error_response(scope["path"], error)
