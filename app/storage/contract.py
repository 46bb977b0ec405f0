"""The contract of a storage, as far as a run has to know it: indexes are on disk, or in PostgreSQL."""

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
    """The chunks of an index, as they were added.

    Attributes:
        average_length: the corpus's, in tokens, as it is part of the chunks' weights.
    """

    @property
    def average_length(self) -> float: ...

    def entries(self, document: str) -> list[Entry]:
        """Return a document's chunks."""
        ...

    def vectors(self, text_hashes: Sequence[str]) -> dict[str, Vector]:
        """Return the vectors of those texts that it has, by their hashes, at length 1."""
        ...

    def known(self, text_hashes: Sequence[str]) -> set[str]:
        """Return those of the hashes whose texts it has."""
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
        has_chunks: its chunks of unchanged documents can be reused.
        is_current: it is the one that is to be served.
        open_chunks: opens its chunks, if their vectors can be reused.
    """

    manifest: Manifest | None = None
    documents: list[Document] = field(default_factory=list)
    has_chunks: bool = False
    is_current: bool = False
    open_chunks: Callable[[], Chunks | None] = lambda: None

    @cached_property
    def chunks(self) -> Chunks | None:
        """The chunks, opened at first use: where nothing has changed, that saves a fifth of the time."""
        return self.open_chunks()

    @property
    def dimensions(self) -> int:
        """Dimensions of the vectors that can be reused; 0 if there are none."""
        return self.manifest.embedding.dimensions if self.manifest and self.chunks else 0


@dataclass(frozen=True)
class ReusedChunks:
    """Chunks of the previous index that the next one reuses.

    Attributes:
        kept: names of documents whose chunks stay as they are.
        copied: name of a document of the previous index, and of one of the next with the same content.
    """

    kept: list[str]
    copied: list[tuple[str, str]]


class Staging(Protocol):
    """An index that is being written; nobody asks it before it is published.

    It raises OSError or IndexingError; then nothing of it is left.
    """

    @property
    def id(self) -> str: ...

    @property
    def built_at(self) -> str: ...

    def reuse(self, previous: PreviousIndex, reused: ReusedChunks) -> None:
        """Begin with those chunks of the previous index that are reused."""
        ...

    def add(self, entries: Sequence[Entry]) -> None: ...

    def save(self) -> int:
        """Build what searching needs; return how many chunks there are."""
        ...

    def publish(self, manifest: Manifest, documents: list[Document]) -> None:
        """Test the index by asking for some of its chunks, have it served, and remove what is too old."""
        ...


class Storage(Protocol):
    """A place where indexes are written, kept and served from."""

    @property
    def engine(self) -> str:
        """Name and version of what writes an index; another version may not understand it."""
        ...

    def writer(self) -> AbstractContextManager[None]:
        """Be the only writer, and remove what a writer that was killed left over.

        Raises:
            IndexLocked: somebody else is; says who.
        """
        ...

    def previous_index(
        self, recipe: Recipe | None, *, full: bool = False
    ) -> AbstractContextManager[PreviousIndex]:
        """Open the newest intact index.

        Args:
            recipe: of the next index; None for this one's own, whatever the settings say.
            full: nothing of it is to be reused.
        """
        ...

    def stage(self, previous: PreviousIndex) -> AbstractContextManager[Staging]:
        """Begin a new index, which is removed unless it gets published. For the writer only."""
        ...

    def cache(self, *, read_only: bool) -> AbstractContextManager[VectorCache]:
        """Open the vectors that a provider was paid for by runs that did not come to an end."""
        ...

    def prune(self) -> None:
        """Remove what is too old to keep. For the writer only, and if the served index is intact."""
        ...

    def roll_back(self, index_id: str | None, check: Callable[[Manifest], None]) -> str:
        """Serve an older index again, by default the newest before the served one; return its id.

        Args:
            check: raises if the index is not to be served.

        Raises:
            SnapshotNotFound: there is none such.
            SnapshotDamaged: it is not what was written.
            IndexLocked: somebody else is writing.
            IndexingError: it does not work.
        """
        ...

    def summaries(self) -> list[IndexSummary]:
        """Describe all indexes, newest first."""
        ...
