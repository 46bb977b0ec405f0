"""Limit the length of a request's address and headers."""

from __future__ import annotations

from itertools import chain

from starlette.types import ASGIApp, Receive, Scope, Send

from app.domain.errors import HeadersTooLarge, RagError, UriTooLong
from app.http.problems import error_response

MAX_URL_BYTES = 8 * 1024
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100


class HeaderLimit:
    """Refuses requests with a longer address, or with more or longer headers, than any usual client sends.

    Heads that do not end are limited by the server's protocol: see `app/http/server/protocol.py`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = _check(scope) if scope["type"] == "http" else None
        app = error_response(scope["path"], error, headers={"Connection": "close"}) if error else self._app
        await app(scope, receive, send)


def _check(scope: Scope) -> RagError | None:
    if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_URL_BYTES:
        return UriTooLong(f"the address is longer than {MAX_URL_BYTES} bytes")
    headers = scope["headers"]
    if len(headers) > MAX_HEADERS:
        return HeadersTooLarge(f"there are more than {MAX_HEADERS} headers")
    if sum(map(len, chain.from_iterable(headers))) > MAX_HEADER_BYTES:
        return HeadersTooLarge(f"the headers are larger than {MAX_HEADER_BYTES} bytes")
    return None
