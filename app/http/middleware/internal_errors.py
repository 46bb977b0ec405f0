"""What every request passes through."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.problems import as_internal_error, error_response
from app.observability.request_context import current_context


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
            if scope["type"] != "http" or current_context().status is not None:
                raise
            await error_response(scope["path"], as_internal_error(error))(scope, receive, send)
