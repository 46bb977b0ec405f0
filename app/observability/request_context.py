"""What is known of a request beside its answer: for its line in the log, the metrics and its trace.

A context variable, because it has to get through LlamaIndex's signatures. Each request is a task of its own,
with which it ends; the tasks that it starts see the same notes.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.domain.answer import Usage
from app.observability.logging import NO_REQUEST

# An outcome; the others are what an answer's `status` says, and the codes of errors.
CLIENT_GONE = "client_gone"

# What a stage is told of itself: the names are those of `StageTimer.stage`'s callers.
SpanAttributes = dict[str, Any]

Header = tuple[bytes, bytes]


class StageSpan(Protocol):
    def end(self, attributes: SpanAttributes, error: BaseException | None) -> None: ...


class RequestTrace(Protocol):
    def begin(self, stage: str, attributes: SpanAttributes) -> StageSpan: ...

    def headers(self) -> dict[str, str]:
        """What tells a provider to which trace a call belongs."""
        ...


@dataclass(slots=True)
class RequestContext:
    """
    Attributes:
        headers: what the response gets beside its own, as long as it has not begun.
        status: of the response, once it has begun.
        answered: whether all of the response has been sent.
        client: the name of the API key, where there is one.
        outcome: an answer's status, the code of an error, or `CLIENT_GONE`.
        stages: milliseconds that were spent in each of those that were begun.
        trace: None where nothing is traced.
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
    """For all that this task does from now on."""
    context = RequestContext(request_id, headers)
    _context.set(context)
    return context


def current_context() -> RequestContext:
    """Those of the request; outside of one, some that nobody reads."""
    return _context.get(None) or RequestContext()
