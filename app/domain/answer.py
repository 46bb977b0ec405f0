"""An answer, and the passages that it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that was retrieved for a question.

    Attributes:
        marker: from 1; `[marker]` in an answer refers to this passage.
        page: None where the format has none; the same goes for `heading`.
        score: the relevance, between 0 and 1, rounded to four digits.
    """

    marker: int
    document: str
    page: int | None
    heading: str | None
    text: str
    score: float
    chunk_id: str


class AnswerStatus(StrEnum):
    ANSWERED = "answered"
    NO_CONTEXT = "no_context"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a language model counted."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds by stage; 0 for a stage that was not needed."""

    embed: float = 0.0
    retrieve: float = 0.0
    generate: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The passages that were found for a question, the best first.

    Attributes:
        index: the id of the index that was searched.
    """

    passages: Sequence[Passage]
    index: str
    timings: Timings


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer.

    Attributes:
        passages: those that the synthesizer was given, in the order of their markers.
        model: the name of the model that wrote the text.
        index: the id of the index that was searched.
        usage: None where no language model was asked.
    """

    text: str
    status: AnswerStatus
    passages: Sequence[Passage]
    model: str
    index: str
    usage: Usage | None
    timings: Timings
    finish_reason: str

    @property
    def sources(self) -> list[str]:
        return sources_of(self.passages)


def sources_of(passages: Sequence[Passage]) -> list[str]:
    """Return the names of the passages' documents, each once, the best first."""
    return list(dict.fromkeys(passage.document for passage in passages))
