"""An answer, the passages that it rests on, and the events of which a streamed one consists."""

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
    """The outcome of a question: answered, or nothing relevant was found."""

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
class Retrieved:
    """The event before the first token: the passages for the answer; none if nothing relevant was found.

    Attributes:
        passages: in the order of their markers.
        index: the id of the index that was searched.
    """

    passages: Sequence[Passage]
    index: str

    @property
    def sources(self) -> list[str]:
        """The names of the passages' documents, each once, the best first."""
        return list(dict.fromkeys(passage.document for passage in self.passages))


@dataclass(frozen=True, slots=True)
class Token:
    """The event of a further piece of an answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Completed:
    """The event that ends an answer.

    Attributes:
        text: all of the answer.
        model: the name of the model that wrote it.
        usage: None where no language model was asked.
        finish_reason: by OpenAI's names: `stop`, or `length` for a text that was cut off.
        timings: set by the engine, which alone knows all stages.
    """

    text: str
    model: str
    usage: Usage | None = None
    finish_reason: str = "stop"
    timings: Timings = Timings()


# A streamed answer is one Retrieved, any number of Tokens and one Completed, in this order. Models and
# synthesizers, which are given the passages, begin with the tokens.
Event = Retrieved | Token | Completed


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    retrieved: Retrieved
    completed: Completed

    @property
    def status(self) -> AnswerStatus:
        """The outcome: `no_context` if there is no passage to answer from."""
        return AnswerStatus.ANSWERED if self.retrieved.passages else AnswerStatus.NO_CONTEXT
