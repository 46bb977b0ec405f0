"""Timing of the stages of a request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.domain.answer import AnswerStatus, Timings, Usage
from app.observability.request_context import RequestContext, SpanAttributes


class StageTimer:
    """A timer that records each stage in the request's context, and in a span if the request is traced."""

    def __init__(self, context: RequestContext) -> None:
        self._started = time.perf_counter()
        self._context = context

    @contextmanager
    def stage(self, name: str, **attributes: Any) -> Iterator[SpanAttributes]:
        """Time the block, which may add attributes of the stage to the yielded mapping."""
        trace, stages = self._context.trace, self._context.stages
        span = trace and trace.begin(name, attributes)
        failure: BaseException | None = None
        started = time.perf_counter()
        try:
            yield attributes
        except BaseException as error:  # recorded in the span, and raised again
            failure = error
            raise
        finally:
            stages[name] = stages.get(name, 0.0) + _milliseconds(started)
            if span:
                span.end(attributes, failure)

    def answered(self, status: AnswerStatus, usage: Usage | None) -> None:
        self._context.outcome, self._context.usage = status.value, usage

    def first_token(self) -> None:
        if self._context.first_token_ms is None:
            self._context.first_token_ms = _milliseconds(self._started)

    def timings(self) -> Timings:
        return Timings(**self._context.stages, total=_milliseconds(self._started))


def _milliseconds(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
