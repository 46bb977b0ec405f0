"""Where indexes are kept, as far as a run has to know: on disk, or in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from app.domain.document import Document
from app.domain.errors import FingerprintMismatch
from app.domain.vectors import Vector
from app.storage.chunks import Entry
from app.storage.manifest import IndexSummary, Manifest
from app.text.chunking import Chunking


@dataclass(frozen=True)
class Recipe:
    """All that decides how an index comes out, besides the documents.

    Attributes:
        reader: see `Manifest`.
        provider, model: of the embeddings.
    """

    reader: str
    chunking: Chunking
    provider: str
    model: str

    @classmethod
    def of(cls, manifest: Manifest) -> Recipe:
        """Return the recipe that an index was made by."""
        embedding = manifest.embedding
        return cls(manifest.reader, manifest.chunking, embedding.provider, embedding.model)

    def makes_vectors_of(self, manifest: Manifest) -> bool:
        """Return whether the vectors of an index can be compared with those that this recipe makes."""
        embedding = manifest.embedding
        return (embedding.provider, embedding.model) == (self.provider, self.model)

    def makes_chunks_of(self, manifest: Manifest) -> bool:
        """Return whether the chunks of an index are those that this recipe makes, with their vectors."""
        return self.makes_vectors_of(manifest) and (manifest.reader, manifest.chunking) == (
            self.reader,
            self.chunking,
        )

    def check_vectors_of(self, manifest: Manifest) -> None:
        """Refuse an index that cannot be asked with this recipe's vectors.

        Raises:
            FingerprintMismatch: names both models, and says what to do.
        """
        if not self.makes_vectors_of(manifest):
            raise FingerprintMismatch(
                f"the index {manifest.id} was built with {manifest.embedding}, but the settings name "
                f"{self.provider}/{self.model}: set them back, or run make reindex"
            )


class Chunks(Protocol):
    """Those of an index, as they were added.

    Attributes:
        average_length: in tokens, as it is part of their weights.
    """

    @property
    def average_length(self) -> float: ...

    def entries(self, document: str) -> list[Entry]:
        """A document's."""
        ...

    def vectors(self, text_hashes: Sequence[str]) -> dict[str, Vector]:
        """Of those texts that it has, at length 1."""
        ...

    def known(self, text_hashes: Sequence[str]) -> set[str]:
        """Those of the hashes whose texts it has."""
        ...


class VectorCache(Protocol):
    """Vectors by scope and hash of the text; see `app.storage.disk.embedding_cache`."""

    def known(self, scope: str, hashes: Iterable[bytes]) -> set[bytes]: ...

    def get(self, scope: str, hashes: Iterable[bytes]) -> dict[bytes, Vector]: ...

    def put(self, scope: str, items: Iterable[tuple[bytes, Vector]]) -> None: ...

    def forget(self, scope: str) -> None: ...

    def trim(self, max_bytes: int) -> None: ...


@dataclass(frozen=True)
class PreviousIndex:
    """The index that a run starts from.

    Attributes:
        manifest: None where there is no intact one.
        has_chunks: what it has of unchanged documents can be taken over as it is.
        is_current: it is the one that is to be served.
        open_chunks: gives its chunks, if vectors of the same texts can be taken over.
    """

    manifest: Manifest | None = None
    documents: list[Document] = field(default_factory=list)
    has_chunks: bool = False
    is_current: bool = False
    open_chunks: Callable[[], Chunks | None] = lambda: None

    @cached_property
    def chunks(self) -> Chunks | None:
        """Opened when it is first asked for: where nothing has changed, a fifth of the time is saved."""
        return self.open_chunks()

    @property
    def dimensions(self) -> int:
        """Of the vectors that can be taken over; 0 if there are none."""
        return self.manifest.embedding.dimensions if self.manifest and self.chunks else 0


@dataclass(frozen=True)
class ReusedChunks:
    """What the next index takes over from the one before.

    Attributes:
        kept: names of documents whose chunks stay as they are.
        copied: a document of the index before, and the name of one of the next with the same content.
    """

    kept: list[str]
    copied: list[tuple[str, str]]


class Staging(Protocol):
    """An index that is being written; nobody asks it before it is published.

    What is raised is OSError or IndexingError; then there is nothing of it.
    """

    @property
    def id(self) -> str: ...

    @property
    def built_at(self) -> str: ...

    def reuse(self, previous: PreviousIndex, reused: ReusedChunks) -> None:
        """Begin with those chunks of the index before that are reused."""
        ...

    def add(self, entries: Sequence[Entry]) -> None: ...

    def save(self) -> int:
        """Build what searching needs; how many chunks there are."""
        ...

    def publish(self, manifest: Manifest, documents: list[Document]) -> None:
        """Ask it for some of its chunks, as a server does, and have it served; remove what is too old."""
        ...


class Storage(Protocol):
    @property
    def engine(self) -> str:
        """What has written an index, as its manifest names it; another version may not understand it."""
        ...

    def writer(self) -> AbstractContextManager[None]:
        """Be the only writer; what a writer that was killed left over is removed.

        Raises:
            IndexLocked: somebody else is; says who.
        """
        ...

    def previous_index(
        self, recipe: Recipe | None, *, full: bool = False
    ) -> AbstractContextManager[PreviousIndex]:
        """The newest intact index.

        Args:
            recipe: of the next index; None for this one's own, whatever the settings say.
            full: nothing is to be taken over from it.
        """
        ...

    def stage(self, previous: PreviousIndex) -> AbstractContextManager[Staging]:
        """A new index; removed unless it gets published. For the writer only."""
        ...

    def cache(self, *, read_only: bool) -> AbstractContextManager[VectorCache]:
        """Vectors that a provider was paid for by runs that did not come to an end."""
        ...

    def prune(self) -> None:
        """Remove what is too old to keep. For the writer only, and if the served index is intact."""
        ...

    def roll_back(self, index_id: str | None, check: Callable[[Manifest], None]) -> str:
        """Serve an older index again, by default the newest before the served one; gives its id.

        Args:
            check: raises what there is against serving it.

        Raises:
            SnapshotNotFound, SnapshotDamaged, IndexLocked
            IndexingError: it does not work.
        """
        ...

    def summaries(self) -> list[IndexSummary]:
        """All indexes, newest first."""
        ...
