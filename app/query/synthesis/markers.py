"""The markers that tie an answer to its passages: `[1]` is the passage with marker 1."""

from __future__ import annotations

import re
from collections.abc import Iterable

from app.domain.answer import Passage

# Every repetition is bounded: a model may send thousands of blanks or digits.
_NUMBERS = r"\d{1,9}(?:\s{0,3},\s{0,3}\d{1,9}){0,50}"
_MARKERS = re.compile(rf"[ \t]{{0,4}}\[({_NUMBERS})\]")
# What may still become one. A blank alone does, too: it goes if its marker does.
_BEGUN = re.compile(rf"[ \t]{{1,4}}\Z|[ \t]{{0,4}}\[(?:{_NUMBERS}(?:\s{{0,3}},?\s{{0,3}}))?\Z")


class MarkerFilter:
    """Keeps only such markers as name a passage, in a text that comes in pieces; `[1, 2]` becomes `[1][2]`.

    What might be the beginning of a marker is held back until it is clear.
    """

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._known = {passage.marker for passage in passages}
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be shown by now; may be empty."""
        text = self._held + piece
        begun = _BEGUN.search(text)
        clear = begun.start() if begun else len(text)
        self._held = text[clear:]
        return self._resolved(text[:clear])

    def end(self) -> str:
        """What was still held back."""
        rest, self._held = self._held, ""
        return self._resolved(rest)

    def _resolved(self, text: str) -> str:
        return _MARKERS.sub(self._kept, text) if "[" in text else text

    def _kept(self, match: re.Match[str]) -> str:
        kept = [number for number in map(int, match[1].split(",")) if number in self._known]
        if not kept:
            return ""
        space = match[0][: match[0].index("[")]
        return space + "".join(f"[{number}]" for number in kept)


def resolve_markers(answer: str, passages: Iterable[Passage]) -> str:
    """The whole answer with only such markers as name a passage."""
    markers = MarkerFilter(passages)
    return markers.feed(answer) + markers.end()
