"""BM25: the words of a text as sparse vectors, and the statistics that turn a score into a relevance.

Tokens come from Qdrant's `Multilingual` tokenizer, which also splits languages without spaces (XQuAD hit@1,
Chinese: 0.922 against 0.099 with its `Word` tokenizer).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import qdrant_edge as qdrant

from app.text.token_cache import TokenCache

K = 1.2
B = 0.75
# Before a corpus is known. Chunks of the default size have 100 to 200 tokens.
DEFAULT_AVERAGE_LENGTH = 150.0

# How far a corpus's average length may move from the one that is in every chunk's weights. Weights move by a
# fraction of that; rewriting them touches every chunk.
_MAX_DRIFT = 0.1

# A term's weight in a text stays below K + 1, so that a query's score stays below this times its IDF.
_WEIGHT_BOUND = K + 1

_AS_BLANKS = str.maketrans("\n\r\t", "   ")


def has_drifted(tokens: int, chunks: int, average_length: float) -> bool:
    """Whether the weights of a corpus, made for an average length, are to be written again."""
    return chunks > 0 and abs(tokens / chunks / average_length - 1) > _MAX_DRIFT


class TermCounts(NamedTuple):
    """The ids of a text's terms, each once, and how often each stands there."""

    terms: list[int]
    counts: list[int]

    @property
    def length(self) -> int:
        """Of the text, in tokens."""
        return sum(self.counts)


class TermCounter:
    """Texts to terms."""

    def __init__(self) -> None:
        # Without length normalisation a weight tells how often its term stands in the text.
        model = qdrant.Bm25(qdrant.Bm25Config(k=K, b=0.0, tokenizer=qdrant.TokenizerType.Multilingual))
        self._model = model
        # Not `self`: in a circle of references an old index's words would outlive it.
        self._words = TokenCache(lambda word: model.embed_query(word).indices)

    def count(self, text: str) -> TermCounts:
        weighted = self._model.embed_document(text)
        weights = np.array(weighted.values)
        counts = np.rint(K * weights / (_WEIGHT_BOUND - weights)).astype(int)
        return TermCounts(weighted.indices, counts.tolist())

    def terms(self, text: str) -> set[int]:
        # A word that is known takes a tenth of the time. Blanks and ends of lines are bounds, whatever is
        # around them, unless another script is: the tokenizer reads "factor 1α" otherwise than "1α".
        if text.isascii():
            return set(self._words.of(text.translate(_AS_BLANKS).split(" ")))
        return set(self._model.embed_query(text).indices)

    def query(self, text: str) -> qdrant.SparseVector:
        """What is compared with a document's weights."""
        terms = sorted(self.terms(text))
        return qdrant.SparseVector(terms, [1.0] * len(terms))


def weights(counts: Sequence[int], *, length: int, average_length: float) -> list[float]:
    """A document's weights of its terms, as the engine's own BM25 computes them.

    Args:
        length: the document's, in tokens.
        average_length: the corpus's.
    """
    damping = _damping(length, average_length)
    return [count * _WEIGHT_BOUND / (count + damping) for count in counts]


def counts_of(weights: Sequence[float], *, length: int, average_length: float) -> list[int]:
    """The counts that `weights` was given."""
    damping = _damping(length, average_length)
    return [round(damping * weight / (_WEIGHT_BOUND - weight)) for weight in weights]


def _damping(length: int, average_length: float) -> float:
    return K * (1 - B + B * length / average_length)


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

    @classmethod
    def of_bytes(cls, content: bytes, chunks: int) -> TermStatistics:
        """What `as_bytes` gave."""
        return cls(chunks, np.frombuffer(content, dtype=np.uint32).reshape(2, -1))

    def as_bytes(self) -> bytes:
        self._merge()
        return self._saved.tobytes()

    def copy(self) -> TermStatistics:
        self._merge()
        return TermStatistics(self.chunks, self._saved)

    def save(self, path: Path) -> None:
        self._merge()
        # Aside, then in place: what is mapped is never written to.
        following = path.with_suffix(".next")
        with following.open("wb") as stream:
            np.save(stream, self._saved, allow_pickle=False)
        following.replace(path)

    def _merge(self) -> None:
        frequencies = Counter(dict(zip(*self._saved.tolist(), strict=True)))
        frequencies.update(self._changes)
        rows = sorted((term, count) for term, count in frequencies.items() if count > 0)
        self._saved = np.array(rows, dtype=np.uint32).reshape(-1, 2).T.copy()
        self._changes.clear()

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
        return _WEIGHT_BOUND * sum(map(self.inverse_frequency, self.frequencies(list(terms))))

    def inverse_frequency(self, frequency: int) -> float:
        """As the engine computes it."""
        return math.log(1 + (self.chunks - frequency + 0.5) / (frequency + 0.5))

    def frequencies(self, terms: list[int]) -> list[int]:
        """In how many chunks each of the terms stands."""
        ids, counts = self._saved
        wanted = np.array(terms, dtype=np.uint32)
        places = np.searchsorted(ids, wanted).tolist()
        ends = np.searchsorted(ids, wanted, side="right").tolist()
        return [
            (int(counts[place]) if place < end else 0) + self._changes.get(term, 0)
            for term, place, end in zip(terms, places, ends, strict=True)
        ]
