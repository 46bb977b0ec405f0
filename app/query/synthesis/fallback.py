"""Fallback answers, quoted from the passages, while the language model fails."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from app.domain.answer import Completed, Event, Passage
from app.domain.errors import ModelTimeout, ModelUnavailable
from app.domain.query import Conversation
from app.query.synthesis.contract import CondensedQuestion, Synthesizer

logger = logging.getLogger(__name__)

_FAILED = (ModelUnavailable, ModelTimeout)


class FallbackSynthesizer:
    """Asks one synthesizer, and another where that fails; `Completed.model` names the one that answered."""

    def __init__(self, preferred: Synthesizer, fallback: Synthesizer) -> None:
        self._preferred, self._fallback = preferred, fallback

    @property
    def model(self) -> str:
        """The model of the preferred synthesizer."""
        return self._preferred.model

    async def condense(self, question: str, conversation: Conversation) -> CondensedQuestion:
        """Condense by the preferred synthesizer, or by the fallback."""
        try:
            return await self._preferred.condense(question, conversation)
        except _FAILED as error:
            _log(error)
            return await self._fallback.condense(question, conversation)

    async def synthesize(
        self, question: str, passages: Sequence[Passage], conversation: Conversation
    ) -> Completed:
        """Answer by the preferred synthesizer, or by the fallback."""
        try:
            return await self._preferred.synthesize(question, passages, conversation)
        except _FAILED as error:
            _log(error)
            return await self._fallback.synthesize(question, passages, conversation)

    async def stream(
        self, question: str, passages: Sequence[Passage], conversation: Conversation
    ) -> AsyncGenerator[Event]:
        """Fall back only before the first token: nobody wants half of one answer and then another."""
        begun = False
        try:
            async with aclosing(self._preferred.stream(question, passages, conversation)) as events:
                async for event in events:
                    begun = True
                    yield event
        except _FAILED as error:
            if begun:
                raise
            _log(error)
            async with aclosing(self._fallback.stream(question, passages, conversation)) as events:
                async for event in events:
                    yield event


def _log(error: ModelUnavailable | ModelTimeout) -> None:
    logger.warning("answering by quotation: %s (cause: %s)", error.detail, error.__cause__ or "none")
