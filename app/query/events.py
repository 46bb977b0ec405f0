"""The events of an answer."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.answer import Citation, QueryResponse


@dataclass(frozen=True)
class Found:
    """What was retrieved for an answer: nothing, if it is not relevant."""

    citations: list[Citation]
    sources: list[str]
    index: str


@dataclass(frozen=True)
class Answered:
    """A whole answer.

    Attributes:
        finish_reason: as OpenAI names it.
    """

    response: QueryResponse
    finish_reason: str


# Of a streamed answer: what was found, then pieces of the text, then the whole.
Part = Found | str | Answered
