"""BM25: the terms of a text as sparse vectors, and the statistics that turn a score into a relevance.

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
# The average length assumed for an empty corpus. Chunks of the default size have 100 to 200 tokens.
DEFAULT_AVERAGE_LENGTH = 150.0

# The drift of a corpus's average length, as a fraction of the one in its chunks' weights, from which on the
# weights are rewritten. Weights drift by less than that, and rewriting them touches every chunk.
_MAX_DRIFT = 0.1

# A term's weight in a text stays below K + 1, so a query's score stays below this times the sum of its IDFs.
_WEIGHT_BOUND = K + 1

_AS_BLANKS = str.maketrans("\n\r\t", "   ")


def has_drifted(tokens: int, chunks: int, average_length: float) -> bool:
    """Return True if a corpus has drifted from the average length that its weights were computed with.

    Args:
        tokens: the number of tokens in the corpus.
        chunks: the number of its chunks.
    """
    return chunks > 0 and abs(tokens / chunks / average_length - 1) > _MAX_DRIFT


class TermCounts(NamedTuple):
    """The distinct term ids of a text, and how often each of them occurs."""

    terms: list[int]
    counts: list[int]

    @property
    def length(self) -> int:
        """The length of the text in tokens."""
        return sum(self.counts)


class TermCounter:
    """A tokenizer that maps texts to term ids."""

    def __init__(self) -> None:
        # Without length normalisation, a term's count can be computed from its weight.
        model = qdrant.Bm25(qdrant.Bm25Config(k=K, b=0.0, tokenizer=qdrant.TokenizerType.Multilingual))
        self._model = model
        # Not `self`: in a reference cycle the cache would outlive its index.
        self._words = TokenCache(lambda word: model.embed_query(word).indices)

    def count(self, text: str) -> TermCounts:
        """Count the terms of a text."""
        weighted = self._model.embed_document(text)
        weights = np.array(weighted.values)
        counts = np.rint(K * weights / (_WEIGHT_BOUND - weights)).astype(int)
        return TermCounts(weighted.indices, counts.tolist())

    def terms(self, text: str) -> set[int]:
        """Return the term ids of a text."""
        # A cached word takes a tenth of the time. Blanks and line ends separate words, except next to other
        # scripts: the tokenizer treats the "1α" of "factor 1α" differently from "1α" alone.
        if text.isascii():
            return set(self._words.of(text.translate(_AS_BLANKS).split(" ")))
        return set(self._model.embed_query(text).indices)

    def query(self, text: str) -> qdrant.SparseVector:
        """Make the sparse vector of a query: weight 1 for each of its terms."""
        terms = sorted(self.terms(text))
        return qdrant.SparseVector(terms, [1.0] * len(terms))


def weights(counts: Sequence[int], *, length: int, average_length: float) -> list[float]:
    """Compute the weights of a text's terms in the same way as the engine's own BM25.

    Args:
        length: the text's length in tokens.
        average_length: the average length of the corpus.
    """
    damping = _damping(length, average_length)
    return [count * _WEIGHT_BOUND / (count + damping) for count in counts]


def counts_of(weights: Sequence[float], *, length: int, average_length: float) -> list[int]:
    """Recover the counts from the result of `weights`."""
    damping = _damping(length, average_length)
    return [round(damping * weight / (_WEIGHT_BOUND - weight)) for weight in weights]


def _damping(length: int, average_length: float) -> float:
    return K * (1 - B + B * length / average_length)


class TermStatistics:
    """The document frequencies: the number of chunks that contain each term.

    Loaded statistics are memory-mapped, which takes 0.2 ms at any size. Changes are kept in memory until they
    are saved.
    """

    def __init__(self, chunks: int = 0, terms: npt.NDArray[np.uint32] | None = None) -> None:
        self.chunks = chunks
        # Shape (2, terms): sorted term ids, and their document frequencies.
        self._saved = np.empty((2, 0), dtype=np.uint32) if terms is None else terms
        self._changes: Counter[int] = Counter()

    @classmethod
    def load(cls, path: Path, chunks: int) -> TermStatistics:
        """Map the file that `save` wrote."""
        # A plain array over the map: slicing a `memmap` takes longer than searching it.
        return cls(chunks, np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)))

    @classmethod
    def of_bytes(cls, content: bytes, chunks: int) -> TermStatistics:
        """Read the result of `as_bytes`."""
        return cls(chunks, np.frombuffer(content, dtype=np.uint32).reshape(2, -1))

    def as_bytes(self) -> bytes:
        self._merge()
        return self._saved.tobytes()

    def copy(self) -> TermStatistics:
        self._merge()
        return TermStatistics(self.chunks, self._saved)

    def save(self, path: Path) -> None:
        """Replace the file; readers that have mapped the old one keep it."""
        self._merge()
        # A new file is renamed over the old one, since a mapped file must not be written to.
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
        """Return an upper bound of a chunk's score for a query of these terms.

        A score divided by this bound can be compared between queries and corpora. Unlike a bare BM25 score,
        it also falls when the query's rare terms are missing, which makes `no_context` possible.
        """
        return _WEIGHT_BOUND * sum(map(self.inverse_frequency, self.frequencies(list(terms))))

    def inverse_frequency(self, frequency: int) -> float:
        """Return the IDF for a document frequency, as the engine computes it."""
        return math.log(1 + (self.chunks - frequency + 0.5) / (frequency + 0.5))

    def frequencies(self, terms: list[int]) -> list[int]:
        """Return the document frequency of each term."""
        ids, counts = self._saved
        wanted = np.array(terms, dtype=np.uint32)
        places = np.searchsorted(ids, wanted).tolist()
        ends = np.searchsorted(ids, wanted, side="right").tolist()
        return [
            (int(counts[place]) if place < end else 0) + self._changes.get(term, 0)
            for term, place, end in zip(terms, places, ends, strict=True)
        ]
