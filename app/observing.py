"""A request's line in the log, and its figures, when it has ended."""

from __future__ import annotations

import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.metrics import RequestMetrics
from app.request_notes import RequestNotes, start_notes

logger = logging.getLogger("app.requests")

# What nginx writes down for a client that did not wait for its answer; it is never sent.
_CLIENT_GONE = 499
_MAX_PATH_CHARS = 200
_MAX_QUESTION_CHARS = 1000


class Observed:
    """Tells of each request when it has ended: for a stream, with its last event.

    All that refuses requests is below it. Probes, and who reads the metrics, are told of at debug level.
    """

    def __init__(self, app: ASGIApp, metrics: RequestMetrics, *, log_questions: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._log_questions = log_questions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        notes = start_notes()
        status = _CLIENT_GONE
        started = time.perf_counter()

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_see)
        finally:
            self._tell(scope, notes, status, time.perf_counter() - started)

    def _tell(self, scope: Scope, notes: RequestNotes, status: int, seconds: float) -> None:
        client = scope.get("state", {}).get("client")
        self._metrics.ended(route_of(scope), scope["method"], status, seconds, client, notes)
        level = logging.DEBUG if is_probe(scope) else logging.INFO
        if logger.isEnabledFor(level):
            fields = self._fields(scope, notes, status, seconds)
            if client is not None:
                fields["client"] = client
            logger.log(level, "request", extra={"fields": fields})

    def _fields(self, scope: Scope, notes: RequestNotes, status: int, seconds: float) -> dict[str, Any]:
        fields = {
            "method": scope["method"],
            # As it was sent, percent-encoded: no line breaks. The query may hold anything, such as a key.
            "path": scope["raw_path"][:_MAX_PATH_CHARS].decode("ascii", "backslashreplace"),
            "status": status,
            "duration_ms": round(seconds * 1000, 1),
            "outcome": notes.outcome or ("ok" if status < 400 else "error"),
        }
        if notes.index is not None:
            fields["index"] = notes.index
        for stage, milliseconds in notes.stages.items():
            fields[f"{stage}_ms"] = milliseconds
        if notes.first_token_ms is not None:
            fields["first_token_ms"] = notes.first_token_ms
        if notes.usage is not None:
            fields |= notes.usage.model_dump()
        if self._log_questions and notes.question is not None:
            fields["question"] = notes.question[:_MAX_QUESTION_CHARS]
        return fields


def route_of(scope: Scope) -> str:
    """The template of the route that took the request: of them there are few, whatever is asked for."""
    return getattr(scope.get("route"), "path", "none")


def is_probe(scope: Scope) -> bool:
    """Whether a machine asks how things are, every few seconds."""
    path: str = scope["path"]
    return path.startswith("/health") or path == "/metrics"
