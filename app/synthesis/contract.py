"""What a synthesizer is, and the markers that tie an answer to its passages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.schemas import Citation, Usage

NO_CONTEXT_ANSWER = "I found nothing in the documents that answers this question."

# Every repetition is bounded: a model may send thousands of blanks or digits.
_MARKERS = re.compile(r"[ \t]{0,4}\[(\d{1,4}(?:\s{0,3},\s{0,3}\d{1,4}){0,50})\]")


@dataclass(frozen=True)
class Synthesis:
    """An answer, whose markers all name a passage."""

    text: str
    usage: Usage | None


class Synthesizer(Protocol):
    @property
    def model(self) -> str:
        """What `model` says in a response."""
        ...

    async def synthesize(self, question: str, passages: Sequence[Citation]) -> Synthesis:
        """Answer from passages, of which there is at least one.

        Raises:
            ModelUnavailable, ModelTimeout: the model provider failed.
        """
        ...


def resolve_markers(answer: str, passages: Sequence[Citation]) -> str:
    """The answer with only such markers as name a passage; `[1, 2]` becomes `[1][2]`."""
    known = {passage.marker for passage in passages}

    def resolved(match: re.Match[str]) -> str:
        kept = [number for number in map(int, match[1].split(",")) if number in known]
        if not kept:
            return ""
        space = match[0][: len(match[0]) - len(match[0].lstrip())]
        return space + "".join(f"[{number}]" for number in kept)

    return _MARKERS.sub(resolved, answer)
