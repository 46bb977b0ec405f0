"""The contract of synthesizers, which make an answer from passages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.domain.answer import Completed, Event, Passage, Usage
from app.domain.query import Conversation

NO_CONTEXT_ANSWER = "I found nothing in the documents that answers this question."


@dataclass(frozen=True, slots=True)
class CondensedQuestion:
    """A question that can be understood, and searched for, without the conversation before it.

    Attributes:
        usage: None where no language model was asked.
    """

    text: str
    usage: Usage | None = None


class Synthesizer(Protocol):
    """Makes answers from passages, of which there is at least one."""

    @property
    def model(self) -> str:
        """The name of the model that is asked first."""
        ...

    async def condense(self, question: str, conversation: Conversation) -> CondensedQuestion:
        """Rewrite a question so that it stands alone; the conversation has at least one turn."""
        ...

    async def synthesize(
        self, question: str, passages: Sequence[Passage], conversation: Conversation
    ) -> Completed:
        """Answer at once; every marker in the text names a passage."""
        ...

    def stream(
        self, question: str, passages: Sequence[Passage], conversation: Conversation
    ) -> AsyncGenerator[Event]:
        """Yield the tokens of an answer as they are made, and then its completion.

        Closing the generator early ends the work, at the provider too.
        """
        ...
