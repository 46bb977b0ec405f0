"""How long the stages of a request take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.domain.answer import AnswerStatus, RetrievalTimings, Timings, Usage
from app.observability.request_context import Facts, RequestNotes

_NO_TIME = {"embed": 0.0, "retrieve": 0.0, "generate": 0.0}


class Stopwatch:
    """Milliseconds by stage, which are the request's, and spans where it is traced."""

    def __init__(self, notes: RequestNotes) -> None:
        self._started = time.perf_counter()
        self._notes = notes

    @contextmanager
    def stage(self, name: str, **facts: Any) -> Iterator[Facts]:
        """Around a part of the work; what becomes known of it meanwhile goes to the facts that this gives."""
        trace, stages = self._notes.trace, self._notes.stages
        span = trace and trace.begin(name, facts)
        failure: BaseException | None = None
        started = time.perf_counter()
        try:
            yield facts
        except BaseException as error:  # for the span to tell; it goes on
            failure = error
            raise
        finally:
            stages[name] = stages.get(name, 0.0) + _milliseconds(started)
            if span:
                span.end(facts, failure)

    def answered(self, status: AnswerStatus, usage: Usage | None) -> None:
        self._notes.outcome, self._notes.usage = status.value, usage

    def first_token(self) -> None:
        if self._notes.first_token_ms is None:
            self._notes.first_token_ms = _milliseconds(self._started)

    def timings(self) -> Timings:
        return Timings(**_NO_TIME | self._notes.stages, total=_milliseconds(self._started))

    def retrieval_timings(self) -> RetrievalTimings:
        return RetrievalTimings(**self._notes.stages, total=_milliseconds(self._started))


def _milliseconds(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
