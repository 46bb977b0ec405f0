"""The access log: a line and metrics for each request that has ended."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from starlette.types import Scope

from app.http.paths import is_probe, route_of
from app.observability.metrics import RequestMetrics
from app.observability.request_context import RequestContext

logger = logging.getLogger("app.requests")

# The status that nginx logs for a client that did not wait for its answer; it is never sent.
_CLIENT_GONE = 499
_MAX_PATH_CHARS = 200
_MAX_QUESTION_CHARS = 1000


class AccessLog:
    """Counts and logs requests that have ended; probes are logged at debug level."""

    def __init__(self, metrics: RequestMetrics, *, log_questions: bool) -> None:
        self._metrics = metrics
        self._log_questions = log_questions

    def record(self, scope: Scope, context: RequestContext, seconds: float) -> None:
        """Count and log a request that took `seconds`."""
        status = context.status or _CLIENT_GONE
        self._metrics.ended(route_of(scope), scope["method"], status, seconds, context)
        level = logging.DEBUG if is_probe(scope) else logging.INFO
        if logger.isEnabledFor(level):
            # Without the search for the caller that `logger.log` makes: it takes as long as the rest.
            record = logger.makeRecord(logger.name, level, __file__, 0, "request", (), None)
            record.fields = self._fields(scope, context, status, seconds)
            logger.handle(record)

    def _fields(self, scope: Scope, context: RequestContext, status: int, seconds: float) -> dict[str, Any]:
        fields = {
            "method": scope["method"],
            # As it was sent, percent-encoded: no line breaks. The query may hold anything, such as a key.
            "path": scope["raw_path"][:_MAX_PATH_CHARS].decode("ascii", "backslashreplace"),
            "status": status,
            "duration_ms": round(seconds * 1000, 1),
            "outcome": context.outcome or ("ok" if status < 400 else "error"),
        }
        if context.index is not None:
            fields["index"] = context.index
        for stage, milliseconds in context.stages.items():
            fields[f"{stage}_ms"] = milliseconds
        if context.first_token_ms is not None:
            fields["first_token_ms"] = context.first_token_ms
        if context.usage is not None:
            fields |= asdict(context.usage)
        if self._log_questions and context.question is not None:
            fields["question"] = context.question[:_MAX_QUESTION_CHARS]
        if context.client is not None:
            fields["client"] = context.client
        return fields
