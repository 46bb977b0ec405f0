"""A request's line in the log, and its figures, when it has ended."""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import Context
from typing import Any, NamedTuple

from starlette.types import Scope

from app.http.paths import is_probe, route_of
from app.observability.metrics import RequestMetrics
from app.observability.request_context import RequestContext

logger = logging.getLogger("app.requests")

# What nginx writes down for a client that did not wait for its answer; it is never sent.
_CLIENT_GONE = 499
_MAX_PATH_CHARS = 200
_MAX_QUESTION_CHARS = 1000
# One after another they are told in a third of the time that each takes between other work.
TELL_EACH_S = 0.05


class _Ended(NamedTuple):
    scope: Scope
    context: RequestContext
    level: int
    status: int
    seconds: float
    at: float


class RequestLog:
    """Counts requests that have ended, and tells of them a moment later; of probes, at debug level."""

    def __init__(self, metrics: RequestMetrics, *, log_questions: bool) -> None:
        self._metrics = metrics
        self._log_questions = log_questions
        self._pending: list[_Ended] = []
        self._closed = False

    def ended(self, scope: Scope, context: RequestContext, seconds: float) -> None:
        """
        Args:
            seconds: that it took.
        """
        status = context.status or _CLIENT_GONE
        self._metrics.ended(route_of(scope), scope["method"], status, seconds, context)
        level = logging.DEBUG if is_probe(scope) else logging.INFO
        if not logger.isEnabledFor(level):
            return
        self._pending.append(_Ended(scope, context, level, status, seconds, time.time()))
        if self._closed:
            self._flush()
        elif len(self._pending) == 1:
            # Not in the context of this one.
            asyncio.get_running_loop().call_later(TELL_EACH_S, self._flush, context=Context())

    def close(self) -> None:
        """Tell of those that have ended, and from now on of each at once: the event loop may end any time."""
        self._closed = True
        self._flush()

    def _flush(self) -> None:
        untold, self._pending = self._pending, []
        for request in untold:
            try:
                self._tell(request)
            except Exception:  # whatever is wrong with one, the others are told of
                logger.exception("a request's line could not be written")

    def _tell(self, request: _Ended) -> None:
        # As `logger.log`, without its search for the caller, which takes as long as the rest.
        record = logger.makeRecord(logger.name, request.level, __file__, 0, "request", (), None)
        record.created = request.at
        record.request_id = request.context.request_id
        record.fields = self._fields(request)
        logger.handle(record)

    def _fields(self, request: _Ended) -> dict[str, Any]:
        scope, context, status = request.scope, request.context, request.status
        fields = {
            "method": scope["method"],
            # As it was sent, percent-encoded: no line breaks. The query may hold anything, such as a key.
            "path": scope["raw_path"][:_MAX_PATH_CHARS].decode("ascii", "backslashreplace"),
            "status": status,
            "duration_ms": round(request.seconds * 1000, 1),
            "outcome": context.outcome or ("ok" if status < 400 else "error"),
        }
        if context.index is not None:
            fields["index"] = context.index
        for stage, milliseconds in context.stages.items():
            fields[f"{stage}_ms"] = milliseconds
        if context.first_token_ms is not None:
            fields["first_token_ms"] = context.first_token_ms
        if context.usage is not None:
            fields |= context.usage.model_dump()
        if self._log_questions and context.question is not None:
            fields["question"] = context.question[:_MAX_QUESTION_CHARS]
        if context.client is not None:
            fields["client"] = context.client
        return fields
