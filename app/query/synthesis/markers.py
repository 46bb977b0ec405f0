"""Markers, which tie an answer to its passages: `[1]` refers to the passage with marker 1."""

from __future__ import annotations

import re
from collections.abc import Iterable

from app.domain.answer import Passage

# Every repetition is bounded: a model may send thousands of blanks or digits.
_NUMBERS = r"\d{1,9}(?:\s{0,3},\s{0,3}\d{1,9}){0,50}"
_MARKERS = re.compile(rf"[ \t]{{0,4}}\[({_NUMBERS})\]")
# The beginning of one, at the end of a text. A blank alone is one, too: it is removed with its marker.
_BEGUN = re.compile(rf"[ \t]{{1,4}}\Z|[ \t]{{0,4}}\[(?:{_NUMBERS}(?:\s{{0,3}},?\s{{0,3}}))?\Z")


class MarkerFilter:
    """Removes markers that name no passage from a text in pieces, and writes `[1, 2]` as `[1][2]`.

    The beginning of a marker at the end of a piece is held back until the next piece decides.
    """

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._known = {passage.marker for passage in passages}
        self._held = ""

    def feed(self, piece: str) -> str:
        """Take in a piece, and return the text that can be shown now, which may be empty."""
        text = self._held + piece
        begun = _BEGUN.search(text)
        decided = begun.start() if begun else len(text)
        self._held = text[decided:]
        return self._resolved(text[:decided])

    def end(self) -> str:
        """Return the text that was held back, at the end of all pieces."""
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
    """Remove markers that name no passage from a whole answer, and write `[1, 2]` as `[1][2]`."""
    markers = MarkerFilter(passages)
    return markers.feed(answer) + markers.end()
