"""The first that sees a request, and the last that sees its answer."""

from __future__ import annotations

import os
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.access_log import RequestLog
from app.http.middleware.draining import Drain
from app.observability.logging import request_id
from app.observability.request_context import Header, RequestContext, start_context

_WELL_FORMED_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
# What browsers are told.
_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    # Answers hold what is in the documents, and belong to whoever had the key.
    (b"cache-control", b"no-store"),
)
# The next request is another server's.
_CLOSE = (b"connection", b"close")


class Observed:
    """Gives a request its id (the caller's `X-Request-ID`, where it is well-formed) and its notes.

    What those have of the answer is noted here, for all layers: one that looks at it by itself takes 10
    microseconds. When the answer has ended, for a stream with its last event, it is told of.
    """

    def __init__(self, app: ASGIApp, log: RequestLog, drain: Drain) -> None:
        self._app = app
        self._log = log
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own = _given_id(scope) or os.urandom(16).hex()
        request_id.set(own)
        context = start_context(own, [*_SECURITY_HEADERS, (b"x-request-id", own.encode())])
        started = time.perf_counter()

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                if self._drain.began:
                    context.headers.append(_CLOSE)
                message["headers"] = _with_headers(message, context)
            elif not message.get("more_body", False):
                context.answered = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            self._log.ended(scope, context, time.perf_counter() - started)


def _given_id(scope: Scope) -> str | None:
    """The first one, where it is well-formed."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given: str = value.decode("latin-1")
            return given if _WELL_FORMED_ID.fullmatch(given) else None
    return None


def _with_headers(message: Message, context: RequestContext) -> list[Header]:
    """Those of the layers are the only ones of their names."""
    names = dict(context.headers)
    return [header for header in message.get("headers", ()) if header[0] not in names] + context.headers
