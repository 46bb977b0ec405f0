"""BM25: the words of a text as sparse vectors, and the statistics that turn a score into a relevance.

Tokens come from Qdrant's `Multilingual` tokenizer, which also splits languages without spaces (XQuAD hit@1,
Chinese: 0.922 against 0.099 with its `Word` tokenizer).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import qdrant_edge as qdrant

from app.embeddings.words import WordMemo

K = 1.2
B = 0.75
# Before a corpus is known. Chunks of the default size have 100 to 200 tokens.
DEFAULT_AVERAGE_LENGTH = 150.0

# A term's weight in a text stays below K + 1, so that a query's score stays below this times its IDF.
_WEIGHT_BOUND = K + 1


class Bm25Encoder:
    """Texts to sparse vectors; a document's weights depend on the corpus's average length."""

    def __init__(self, average_length: float = DEFAULT_AVERAGE_LENGTH) -> None:
        self.average_length = average_length
        self._model = model = _model(b=B, average_length=average_length)
        # Not `self`: in a circle of references an old index's words would outlive it.
        self._words = WordMemo(lambda word: model.embed_query(word).indices)

    def encode_document(self, text: str) -> qdrant.SparseVector:
        return self._model.embed_document(text)

    def encode_query(self, text: str) -> qdrant.SparseVector:
        terms = sorted(self.terms(text))
        return qdrant.SparseVector(terms, [1.0] * len(terms))

    def terms(self, text: str) -> set[int]:
        """The ids of the text's terms."""
        # A blank is a bound, whatever is around it, unless another script is: the tokenizer reads "factor 1α"
        # otherwise than "1α".
        if text.isascii():
            return set(self._words.of(text.split(" ")))
        return set(self._model.embed_query(text).indices)


class LengthCounter:
    """Counts tokens as BM25 does."""

    def __init__(self) -> None:
        # Without length normalisation a weight tells its term's frequency: tf * (K + 1) / (tf + K).
        self._model = _model(b=0.0, average_length=DEFAULT_AVERAGE_LENGTH)

    def count(self, text: str) -> float:
        weights = self._model.embed_document(text).values
        return sum(K * weight / (_WEIGHT_BOUND - weight) for weight in weights)


def _model(*, b: float, average_length: float) -> qdrant.Bm25:
    return qdrant.Bm25(
        qdrant.Bm25Config(k=K, b=b, avg_len=average_length, tokenizer=qdrant.TokenizerType.Multilingual)
    )


class TermStatistics:
    """In how many chunks each term stands.

    Loaded ones stay on disk, memory-mapped: 0.2 ms whatever their size. What was added or removed since is
    kept beside them until `save`.
    """

    def __init__(self, chunks: int = 0, terms: npt.NDArray[np.uint32] | None = None) -> None:
        self.chunks = chunks
        # Shape (2, terms): sorted term ids, and their document frequencies.
        self._saved = np.empty((2, 0), dtype=np.uint32) if terms is None else terms
        self._changes: Counter[int] = Counter()

    @classmethod
    def load(cls, path: Path, chunks: int) -> TermStatistics:
        # As a plain array: slicing a `memmap` takes longer than searching it.
        return cls(chunks, np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)))

    def save(self, path: Path) -> None:
        frequencies = Counter(dict(zip(*self._saved.tolist(), strict=True)))
        frequencies.update(self._changes)
        rows = sorted((term, count) for term, count in frequencies.items() if count > 0)
        self._saved = np.array(rows, dtype=np.uint32).reshape(-1, 2).T.copy()
        self._changes.clear()
        np.save(path, self._saved, allow_pickle=False)

    def add(self, terms: Iterable[int]) -> None:
        self.chunks += 1
        self._changes.update(terms)

    def remove(self, terms: Iterable[int]) -> None:
        self.chunks -= 1
        self._changes.subtract(terms)

    def score_bound(self, terms: Iterable[int]) -> float:
        """More than any chunk can score for a query of these terms.

        A score over its bound is comparable between queries and corpora: unlike a bare BM25 score it also
        falls when the query's rare words are missing, which is what makes `no_context` possible.
        """
        return _WEIGHT_BOUND * sum(map(self._inverse_frequency, self._frequencies(list(terms))))

    def _inverse_frequency(self, frequency: int) -> float:
        """As the engine computes it."""
        return math.log(1 + (self.chunks - frequency + 0.5) / (frequency + 0.5))

    def _frequencies(self, terms: list[int]) -> list[int]:
        ids, counts = self._saved
        wanted = np.array(terms, dtype=np.uint32)
        places = np.searchsorted(ids, wanted).tolist()
        ends = np.searchsorted(ids, wanted, side="right").tolist()
        return [
            (int(counts[place]) if place < end else 0) + self._changes.get(term, 0)
            for term, place, end in zip(terms, places, ends, strict=True)
        ]
