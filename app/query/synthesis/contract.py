"""What a synthesizer is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.domain.answer import Passage, Usage
from app.domain.query import Conversation

NO_CONTEXT_ANSWER = "I found nothing in the documents that answers this question."


@dataclass(frozen=True)
class Standalone:
    """A question that can be understood, and searched for, without what was said before it."""

    text: str
    usage: Usage | None = None


@dataclass(frozen=True)
class Synthesis:
    """An answer, whose markers all name a passage.

    Attributes:
        model: which made it.
        finish_reason: as OpenAI names it: `stop`, or `length` for an answer that was cut off.
    """

    text: str
    model: str
    usage: Usage | None = None
    finish_reason: str = "stop"


class Synthesizer(Protocol):
    """Raises ModelUnavailable or ModelTimeout where a model provider failed."""

    @property
    def model(self) -> str:
        """What `model` says in a response."""
        ...

    async def standalone(self, question: str, conversation: Conversation) -> Standalone:
        """Make a question independent of what was said before, of which there is something."""
        ...

    async def synthesize(
        self, question: str, passages: Sequence[Passage], conversation: Conversation
    ) -> Synthesis:
        """Answer from passages, of which there is at least one."""
        ...

    def stream(
        self, question: str, passages: Sequence[Passage], conversation: Conversation
    ) -> AsyncGenerator[str | Synthesis]:
        """As `synthesize`: pieces of its text as they are made, then the synthesis.

        Closing it early ends what is being done for it.
        """
        ...
