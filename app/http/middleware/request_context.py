"""Give each request its id, context and line in the log, and its answer the security headers."""

from __future__ import annotations

import os
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.access_log import AccessLog
from app.http.middleware.draining import Drain
from app.observability.logging import request_id
from app.observability.request_context import Header, RequestContext, start_context

_WELL_FORMED_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    # Answers contain text of the documents, and are meant for the holder of the key only.
    (b"cache-control", b"no-store"),
)
# Sent while the server stops, so that the client's next request goes to another server.
_CLOSE = (b"connection", b"close")


class RequestRecord:
    """Gives a request its context and its id, which is the client's `X-Request-ID` if that is well-formed.

    Only this middleware notes the status and the end of the answer in the context, since each wrapper of
    `send` takes 10 microseconds. A request is logged when its answer has ended, which for a stream is after
    its last event.
    """

    def __init__(self, app: ASGIApp, log: AccessLog, drain: Drain) -> None:
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
            self._log.record(scope, context, time.perf_counter() - started)


def _given_id(scope: Scope) -> str | None:
    """Return the first `X-Request-ID` if it is well-formed."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given: str = value.decode("latin-1")
            return given if _WELL_FORMED_ID.fullmatch(given) else None
    return None


def _with_headers(message: Message, context: RequestContext) -> list[Header]:
    """Return the headers of a response and its context; the context's replace those of the same name."""
    names = dict(context.headers)
    return [header for header in message.get("headers", ()) if header[0] not in names] + context.headers
