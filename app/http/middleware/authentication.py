"""Refuse requests without a known API key, except for open paths."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from app.domain.errors import Unauthorized
from app.http.api_keys import ApiKeys
from app.http.problems import error_response
from app.observability.request_context import current_context


class Authentication:
    """Passes requests with a known key on, and notes the key's name.

    It precedes the routing, so that without a key, existing and missing paths look the same.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys, open_paths: frozenset[str]) -> None:
        self._app = app
        self._keys = keys
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in self._open_paths):
            await self._app(scope, receive, send)
            return
        keys = _presented(scope)
        client = await self._keys.client_of(*keys) if keys else None
        if client is not None:
            current_context().client = client
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _refusal(scope, wrong=bool(keys))(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})


def _presented(scope: Scope) -> list[bytes]:
    """Return the first key of each header; a proxy in front may use one of the headers for itself."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            found.setdefault(name, value.strip())
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            found.setdefault(name, value[7:].strip())
    return list(found.values())


def _refusal(scope: Scope, *, wrong: bool) -> ASGIApp:
    detail = "this API key is not known" if wrong else "an API key is needed"
    error = Unauthorized(f"{detail}: send one as `Authorization: Bearer` or `X-API-Key`")
    challenge = 'Bearer error="invalid_token"' if wrong else "Bearer"
    return error_response(scope["path"], error, headers={"WWW-Authenticate": challenge})
