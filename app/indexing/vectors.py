"""The vectors of chunks: those that are known, and those that have to be asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from threading import Event

from app.domain.errors import EmbeddingChanged, IndexingError
from app.domain.vectors import Vector, Vectors
from app.embeddings.contract import BatchEmbedding, Submit
from app.indexing.prepare import PreparedChunk
from app.indexing.run import stop_if
from app.storage.chunks import Entry, StoredChunk
from app.storage.contract import Chunks, VectorCache

# Between looks at whether the run was cancelled.
_LOOK_S = 0.2
# For what was asked for already, and is paid, when a run ends early.
_LAST_ANSWERS_S = 10.0


@dataclass(frozen=True)
class Embedder:
    """The embedding model, as a run uses it.

    Attributes:
        model: None where chunks come with their vectors, and only the previous index is asked for others.
        scope: whose vectors those in the cache have to be.
        concurrency: batches that are embedded at the same time.
        price: US dollars for a million tokens; None where it is not known.
        cache_bytes: of vectors that are kept after a run that succeeds.
    """

    model: BatchEmbedding | None
    scope: str
    batch_size: int
    concurrency: int
    price: float | None
    cache_bytes: int

    @classmethod
    def of_readers(cls, *, batch_size: int) -> Embedder:
        """Return the embedder of a bundled model, which the reader processes run."""
        return cls(None, scope="", batch_size=batch_size, concurrency=1, price=0.0, cache_bytes=0)

    def session(self) -> AbstractContextManager[Submit | None]:
        return nullcontext() if self.model is None else self.model.session()


class KnownVectors:
    """Vectors of the previous index, and of runs that did not come to an end.

    Args:
        scope: whose vectors those in the cache have to be.
    """

    def __init__(self, previous: Chunks | None, cache: VectorCache | None, scope: str) -> None:
        self._previous = previous
        self._cache = cache
        self._scope = scope

    def get(self, hashes: Sequence[str]) -> dict[str, Vector]:
        """Return those vectors that are known, by the hash of the text."""
        found = self._previous.vectors(hashes) if self._previous else {}
        missing = [bytes.fromhex(each) for each in hashes if each not in found]
        if self._cache and missing:
            cached = self._cache.get(self._scope, missing)
            found |= {each.hex(): vector for each, vector in cached.items()}
        return found

    def missing(self, hashes: Sequence[str]) -> set[str]:
        """Return those of the hashes whose texts have no vector."""
        missing = set(hashes) - (self._previous.known(hashes) if self._previous else set())
        if self._cache and missing:
            missing -= {each.hex() for each in self._cache.known(self._scope, map(bytes.fromhex, missing))}
        return missing

    def keep(self, hashes: Sequence[str], vectors: Vectors) -> None:
        if self._cache:
            self._cache.put(self._scope, zip(map(bytes.fromhex, hashes), vectors, strict=True))

    def forget(self) -> None:
        """Keep nothing of a model that has become another."""
        if self._cache:
            self._cache.forget(self._scope)


@dataclass
class _Group:
    """Chunks, and what there is of their vectors.

    Attributes:
        vectors: by the texts' hashes.
        asked: hashes of the texts that were sent, in the answer's order.
        others: groups that have sent the texts that are neither known nor asked for here.
    """

    chunks: list[PreparedChunk]
    vectors: dict[str, Vector]
    asked: list[str] = field(default_factory=list)
    answer: Future[Vectors] | None = None
    others: dict[str, _Group] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        return self.answer is None or self.answer.done()


class VectorSource:
    """Finds the vector of each chunk; a text that is known, or was sent already, is not sent.

    Attributes:
        dimensions: of all vectors; 0 while that is not known.
        embedded: how many texts had no vector before.
        tokens: of these, about.
    """

    def __init__(
        self,
        known: KnownVectors,
        submit: Submit | None,
        *,
        concurrency: int,
        dimensions: int,
        cancelled: Event,
    ) -> None:
        self.dimensions = dimensions
        self.embedded = 0
        self.tokens = 0
        self._known = known
        self._submit = submit
        self._concurrency = concurrency
        self._cancelled = cancelled
        self._waiting: deque[_Group] = deque()
        # By hash: which group has sent a text whose vector is not there yet.
        self._sent: dict[str, _Group] = {}
        # Hashes of texts that came with their vectors, which no cache knows when they come again.
        self._brought: set[str] = set()

    def resolve(self, groups: Iterable[list[PreparedChunk]]) -> Iterator[list[Entry]]:
        """Yield the groups in order, each chunk with its vector.

        Raises:
            IndexingCancelled: the run was cancelled.
            IndexingError: the model failed. What it gave until then is kept for the next run.
        """
        try:
            for chunks in groups:
                self._waiting.append(self._begin(chunks))
                while self._waiting and (self._waiting[0].is_done or len(self._waiting) >= self._concurrency):
                    yield self._finish()
            while self._waiting:
                yield self._finish()
        except EmbeddingChanged:
            self._known.forget()
            raise
        except IndexingError:
            self._keep_last_answers()
            raise

    def _begin(self, chunks: list[PreparedChunk]) -> _Group:
        wanted = {each.chunk.text_hash: each for each in chunks}
        group = _Group(chunks, self._known.get(list(wanted)))
        missing = {hashed: each for hashed, each in wanted.items() if hashed not in group.vectors}
        group.others = {hashed: self._sent[hashed] for hashed in missing if hashed in self._sent}
        new = {hashed: each for hashed, each in missing.items() if hashed not in group.others}
        counted = new.keys() - self._brought
        self.embedded += len(counted)
        self.tokens += sum(new[hashed].tokens for hashed in counted)
        if self._submit is None:
            self._brought |= counted
            group.vectors |= {hashed: each.vector for hashed, each in new.items() if each.vector is not None}
        elif new:
            group.asked = list(new)
            group.answer = self._submit([each.chunk.embed_text for each in new.values()])
            self._sent.update(dict.fromkeys(new, group))
        return group

    def _finish(self) -> list[Entry]:
        """Wait for the first group; those before it, whose answers it may need, are done."""
        group = self._waiting[0]
        if group.answer is not None:
            while not wait([group.answer], _LOOK_S).done:
                stop_if(self._cancelled)
            answer = group.answer.result()
            self._known.keep(group.asked, answer)
            group.vectors |= zip(group.asked, answer, strict=True)
            for hashed in group.asked:
                del self._sent[hashed]
        group.vectors |= {hashed: other.vectors[hashed] for hashed, other in group.others.items()}
        self._check(group.vectors.values())
        self._waiting.popleft()
        return [
            Entry(StoredChunk.of(each.chunk), group.vectors[each.chunk.text_hash], each.terms)
            for each in group.chunks
        ]

    def _check(self, vectors: Iterable[Vector]) -> None:
        for vector in vectors:
            self.dimensions = self.dimensions or len(vector)
            if len(vector) != self.dimensions:
                raise EmbeddingChanged(
                    f"the embedding model's vectors had {self.dimensions} dimensions before, and now have "
                    f"{len(vector)}: scripts/reindex.py --full embeds everything anew"
                )

    def _keep_last_answers(self) -> None:
        """Keep the vectors that were asked for before the run failed: they are paid for."""
        open_answers = [group.answer for group in self._waiting if group.answer is not None]
        wait(open_answers, _LAST_ANSWERS_S)
        for group in self._waiting:
            answer = group.answer
            if answer is not None and answer.done() and not answer.cancelled() and not answer.exception():
                self._known.keep(group.asked, answer.result())
