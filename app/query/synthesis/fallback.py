"""Quoted answers while the language model fails."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from app.domain.answer import Passage
from app.domain.errors import ModelTimeout, ModelUnavailable
from app.domain.query import Conversation
from app.query.synthesis.contract import Standalone, Synthesis, Synthesizer

logger = logging.getLogger(__name__)

_FAILED = (ModelUnavailable, ModelTimeout)


class FallbackSynthesizer:
    """Asks one synthesizer, and another where that fails. Which it was, the synthesis's `model` tells."""

    def __init__(self, preferred: Synthesizer, fallback: Synthesizer) -> None:
        self._preferred, self._fallback = preferred, fallback

    @property
    def model(self) -> str:
        return self._preferred.model

    async def standalone(self, question: str, conversation: Conversation) -> Standalone:
        try:
            return await self._preferred.standalone(question, conversation)
        except _FAILED as error:
            _log(error)
            return await self._fallback.standalone(question, conversation)

    async def synthesize(
        self, question: str, passages: Sequence[Passage], conversation: Conversation
    ) -> Synthesis:
        try:
            return await self._preferred.synthesize(question, passages, conversation)
        except _FAILED as error:
            _log(error)
            return await self._fallback.synthesize(question, passages, conversation)

    async def stream(
        self, question: str, passages: Sequence[Passage], conversation: Conversation
    ) -> AsyncGenerator[str | Synthesis]:
        """Only before the first piece: nobody wants half of one answer and then another."""
        begun = False
        try:
            async with aclosing(self._preferred.stream(question, passages, conversation)) as parts:
                async for part in parts:
                    begun = True
                    yield part
        except _FAILED as error:
            if begun:
                raise
            _log(error)
            async with aclosing(self._fallback.stream(question, passages, conversation)) as parts:
                async for part in parts:
                    yield part


def _log(error: ModelUnavailable | ModelTimeout) -> None:
    logger.warning("answering by quotation: %s (cause: %s)", error.detail, error.__cause__ or "none")
