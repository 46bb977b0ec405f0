"""Checks of the promises that every stream of POST /query/stream keeps, on its events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.sse import Event

ANSWER_FIELDS = {"answer", "status", "sources", "citations", "model", "index", "usage", "timings_ms"}
PROBLEM_FIELDS = {"type", "title", "status", "code", "detail", "request_id"}
TIMINGS = ["embed", "retrieve", "generate", "total"]


@dataclass(frozen=True)
class Answered:
    citations: dict[str, Any]
    tokens: list[str]
    answer: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    citations: dict[str, Any]
    tokens: list[str]
    problem: dict[str, Any]


def check(events: Sequence[Event]) -> Answered | Failed:
    """Check that citations and tokens are followed by the answer and the end mark, or by the error."""
    rest = iter(events)
    citations = _citations(next(rest))
    tokens: list[str] = []
    for event in rest:
        if event.name != "message":
            ending = _error(event) if event.name == "error" else _answer(event, citations, tokens, rest)
            assert list(rest) == [], "something follows the end"
            return (
                Failed(citations, tokens, ending)
                if event.name == "error"
                else Answered(citations, tokens, ending)
            )
        tokens.append(token_of(event))
    raise AssertionError("the stream has no end")


def answered(events: Sequence[Event]) -> Answered:
    outcome = check(events)
    assert isinstance(outcome, Answered), outcome
    return outcome


def failed(events: Sequence[Event]) -> Failed:
    outcome = check(events)
    assert isinstance(outcome, Failed), outcome
    return outcome


def token_of(event: Event) -> str:
    assert event.name == "message", event
    data = json.loads(event.data)
    assert list(data) == ["token"], event
    token = data["token"]
    assert isinstance(token, str)
    assert token, "an empty token"
    return token


def _citations(event: Event) -> dict[str, Any]:
    assert event.name == "citations", event
    citations: dict[str, Any] = json.loads(event.data)
    assert set(citations) == {"citations", "sources", "index"}
    return citations


def _answer(
    event: Event, citations: dict[str, Any], tokens: list[str], rest: Iterator[Event]
) -> dict[str, Any]:
    assert event.name == "answer", event
    answer: dict[str, Any] = json.loads(event.data)
    assert set(answer) == ANSWER_FIELDS
    assert list(answer["timings_ms"]) == TIMINGS
    assert {name: answer[name] for name in citations} == citations
    assert "".join(tokens) == answer["answer"]
    assert next(rest, None) == Event("[DONE]"), "no end mark"
    return answer


def _error(event: Event) -> dict[str, Any]:
    problem: dict[str, Any] = json.loads(event.data)
    assert set(problem) == PROBLEM_FIELDS
    assert problem["type"].endswith(problem["code"])
    assert all(isinstance(problem[name], int if name == "status" else str) for name in problem)
    return problem
