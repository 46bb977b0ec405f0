"""Answer requests whose exceptions nothing else has handled."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.problems import as_internal_error, error_response
from app.observability.request_context import current_context


class InternalErrors:
    """Turns an unexpected exception into a problem document with the status 500 and the request's id.

    Starlette's own handler raises the exception again, which makes the server log it twice and close the
    connection. After the response has begun, its status cannot change any more: the exception is raised
    again, and the server cuts the response off.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # the boundary of a request, beyond which nothing answers
            if scope["type"] != "http" or current_context().status is not None:
                raise
            await error_response(scope["path"], as_internal_error(error))(scope, receive, send)
