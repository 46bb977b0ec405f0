"""What a synthesizer is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.domain.answer import Citation, Usage

NO_CONTEXT_ANSWER = "I found nothing in the documents that answers this question."


@dataclass(frozen=True)
class Turn:
    """Something that was said before the question."""

    role: str
    text: str


@dataclass(frozen=True)
class Conversation:
    """What a chat client sends around its question. A model uses it; a quotation has no use for it.

    Attributes:
        instructions: how to answer, in the client's words.
        options: further parameters for the model, as its API names them.
    """

    history: tuple[Turn, ...] = ()
    instructions: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


NO_CONVERSATION = Conversation()


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
        self, question: str, passages: Sequence[Citation], conversation: Conversation
    ) -> Synthesis:
        """Answer from passages, of which there is at least one."""
        ...

    def stream(
        self, question: str, passages: Sequence[Citation], conversation: Conversation
    ) -> AsyncGenerator[str | Synthesis]:
        """As `synthesize`: pieces of its text as they are made, then the synthesis.

        Closing it early ends what is being done for it.
        """
        ...
