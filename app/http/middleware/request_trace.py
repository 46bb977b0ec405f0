"""Begin the trace of a request."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.paths import is_probe


class RequestTrace:
    """Begins the trace of each request except probes; it must be inside `RequestRecord`."""

    def __init__(self, app: ASGIApp, begin: Callable[[], None]) -> None:
        self._app = app
        self._begin = begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_probe(scope):
            self._begin()
        await self._app(scope, receive, send)
