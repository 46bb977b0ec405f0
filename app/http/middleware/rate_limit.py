"""Limit how often a client may ask."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from app.domain.errors import Overloaded, RagError, RateLimited
from app.http.client_address import ClientAddress
from app.http.paths import is_work
from app.http.problems import error_response
from app.http.rate_limiter import RateLimiter, Verdict
from app.observability.request_context import Header, current_context


class RateLimit:
    """Refuses work beyond a client's limit; clients differ by key name, or by address without keys."""

    def __init__(self, app: ASGIApp, limiter: RateLimiter, address_of: ClientAddress) -> None:
        self._app = app
        self._limiter = limiter
        self._address_of = address_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_work(scope):
            await self._app(scope, receive, send)
            return
        context = current_context()
        client = ("key", context.client) if context.client else ("address", self._address_of(scope))
        try:
            verdict = await self._limiter.take(*client)
        except Overloaded as error:
            await error_response(scope["path"], error)(scope, receive, send)
            return
        if verdict is None:
            await self._app(scope, receive, send)
            return
        context.headers += self._headers(verdict)
        app = self._app if verdict.allowed else error_response(scope["path"], self._refusal(verdict))
        await app(scope, receive, send)

    def _headers(self, verdict: Verdict) -> list[Header]:
        return [
            (b"ratelimit-limit", b"%d" % self._limiter.limit.amount),
            (b"ratelimit-remaining", b"%d" % verdict.remaining),
            (b"ratelimit-reset", b"%d" % verdict.reset_s),
        ]

    def _refusal(self, verdict: Verdict) -> RagError:
        return RateLimited(f"more than {self._limiter.limit}", retry_after_s=verdict.reset_s)
