"""The analysis of a passage's sentences for ranking, which depends on no question and is remembered."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from app.domain.answer import Passage
from app.domain.vectors import Vectors
from app.embeddings.local import LocalEmbedding
from app.query.synthesis.sentences import split_sentences
from app.text.bm25 import TermCounter

# A passage of 1,000 characters takes 9 KB, so that this holds 4,300 of them.
_REMEMBERED_BYTES = 40_000_000
# The objects around a passage's arrays and texts.
_OVERHEAD_BYTES = 1_000

_PLAIN_SUFFIXES = (".pdf", ".txt", ".text", ".log", ".rst")

# Everything that an analysis depends on: the passage's text, its heading, and whether it is Markdown.
_Key = tuple[str, str | None, bool]


@dataclass(frozen=True, slots=True)
class SentenceAnalysis:
    """Sentences with their vectors and terms, each analysed together with its heading.

    Attributes:
        vectors: shape (sentences, dimensions), of length 1.
        terms: the BM25 terms of all sentences, one after another.
        places: for each term the index of its sentence; shape as of `terms`.
    """

    sentences: list[str]
    vectors: Vectors
    terms: npt.NDArray[np.uint32]
    places: npt.NDArray[np.integer[Any]]

    @staticmethod
    def joined(parts: Sequence[SentenceAnalysis]) -> SentenceAnalysis:
        """Return the analysis of the sentences of several passages, in their order."""
        starts = np.cumsum([0, *(len(part.sentences) for part in parts[:-1])])
        return SentenceAnalysis(
            [sentence for part in parts for sentence in part.sentences],
            np.concatenate([part.vectors for part in parts]),
            np.concatenate([part.terms for part in parts]),
            np.concatenate([part.places + start for part, start in zip(parts, starts, strict=True)]),
        )

    def first(self, count: int) -> SentenceAnalysis:
        """Return the analysis of the first `count` sentences."""
        if len(self.sentences) <= count:
            return self
        kept = self.places < count
        return SentenceAnalysis(
            self.sentences[:count], self.vectors[:count], self.terms[kept], self.places[kept]
        )


class SentenceAnalyzer:
    """Analyses passages, and remembers the last ones; safe to use from several threads.

    Args:
        max_sentences: the number of sentences of a passage that are analysed.
        remembered_bytes: the memory for analyses; the least recently used make room for new ones.
    """

    def __init__(
        self,
        embedding: LocalEmbedding,
        counter: TermCounter,
        *,
        max_sentences: int,
        remembered_bytes: int = _REMEMBERED_BYTES,
    ) -> None:
        self._embedding = embedding
        self._counter = counter
        self._max_sentences = max_sentences
        self._room = remembered_bytes
        self._remembered: OrderedDict[_Key, SentenceAnalysis] = OrderedDict()
        self._lock = Lock()

    def analyze(self, passage: Passage) -> SentenceAnalysis:
        """Return the analysis of the first `max_sentences` of a passage."""
        key = (passage.text, passage.heading, not passage.document.lower().endswith(_PLAIN_SUFFIXES))
        with self._lock:
            if (known := self._remembered.get(key)) is not None:
                self._remembered.move_to_end(key)
                return known
        analysis = self._compute(key)
        with self._lock:
            self._remember(key, analysis)
        return analysis

    def _remember(self, key: _Key, analysis: SentenceAnalysis) -> None:
        if key in self._remembered:
            return
        self._remembered[key] = analysis
        self._room -= _size(key, analysis)
        while self._room < 0:
            self._room += _size(*self._remembered.popitem(last=False))

    def _compute(self, key: _Key) -> SentenceAnalysis:
        text, heading, markdown = key
        sentences = split_sentences(text, markdown=markdown, limit=self._max_sentences)
        texts = [f"{heading or ''} {sentence}" for sentence in sentences]
        terms = [self._counter.terms(text) for text in texts]
        return SentenceAnalysis(
            sentences,
            self._embedding.embed(texts),
            np.array([term for each in terms for term in each], dtype=np.uint32),
            np.array([place for place, each in enumerate(terms) for _ in each], dtype=np.uint16),
        )


def _size(key: _Key, analysis: SentenceAnalysis) -> int:
    text, heading, _ = key
    arrays = analysis.vectors.nbytes + analysis.terms.nbytes + analysis.places.nbytes
    return _OVERHEAD_BYTES + arrays + sum(map(sys.getsizeof, (text, heading, *analysis.sentences)))
