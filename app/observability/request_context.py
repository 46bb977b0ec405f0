"""The context of a request: what its log line, the metrics and its trace show of it.

It is kept in a context variable, because it has to pass through LlamaIndex's signatures. Each request runs in
a task of its own, and the tasks that this starts share its context.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.domain.answer import Usage
from app.observability.logging import NO_REQUEST

# One of the outcomes; the others are the statuses of answers and the codes of errors.
CLIENT_GONE = "client_gone"

# Attributes of a stage, by the names that the callers of `StageTimer.stage` use.
SpanAttributes = dict[str, Any]

Header = tuple[bytes, bytes]


class StageSpan(Protocol):
    """The span of a stage."""

    def end(self, attributes: SpanAttributes, error: BaseException | None) -> None:
        """End the span with the stage's attributes and the error that ended it, if any."""
        ...


class RequestTrace(Protocol):
    """The trace of a request."""

    def begin(self, stage: str, attributes: SpanAttributes) -> StageSpan:
        """Begin the span of a stage."""
        ...

    def headers(self) -> dict[str, str]:
        """Return the headers that propagate the trace to a provider."""
        ...


@dataclass(slots=True)
class RequestContext:
    """The facts about a request that are collected while it is answered.

    Attributes:
        headers: headers to add to the response, as long as it has not begun.
        status: the status of the response, once it has begun.
        answered: True when the whole response has been sent.
        client: the name of the API key, if there is one.
        outcome: an answer's status, the code of an error, or `CLIENT_GONE`.
        stages: milliseconds spent in each stage that has begun.
        trace: None if the request is not traced.
    """

    request_id: str = NO_REQUEST
    headers: list[Header] = field(default_factory=list)
    status: int | None = None
    answered: bool = False
    client: str | None = None
    outcome: str | None = None
    index: str | None = None
    question: str | None = None
    stages: dict[str, float] = field(default_factory=dict)
    first_token_ms: float | None = None
    usage: Usage | None = None
    trace: RequestTrace | None = None


_context: ContextVar[RequestContext] = ContextVar("request_notes")


def start_context(request_id: str, headers: list[Header]) -> RequestContext:
    """Set the context of the current task, and of those that it starts from now on."""
    context = RequestContext(request_id, headers)
    _context.set(context)
    return context


def current_context() -> RequestContext:
    """Return the context of the current request; outside a request, a new one that is discarded."""
    return _context.get(None) or RequestContext()
