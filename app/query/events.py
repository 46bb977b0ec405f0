"""The events of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.answer import Answer, Passage, sources_of


@dataclass(frozen=True)
class Found:
    """What was retrieved for an answer: nothing, if it is not relevant."""

    passages: Sequence[Passage]
    index: str

    @property
    def sources(self) -> list[str]:
        return sources_of(self.passages)


@dataclass(frozen=True)
class Answered:
    """A whole answer."""

    answer: Answer


# Of a streamed answer: what was found, then pieces of the text, then the whole.
Part = Found | str | Answered
