"""Put together the parts that build indexes.

Nothing here imports LlamaIndex, which takes two seconds: an operator would wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from app.config.choices import EmbeddingProvider
from app.config.settings import Settings
from app.documents.extraction import READER_VERSION
from app.documents.limits import ReadingLimits
from app.documents.reader_pool import ReaderPool
from app.embeddings.static_model import MODEL
from app.indexing.indexer import Indexer
from app.indexing.prepare import Prepared, prepare
from app.indexing.vectors import Embedder
from app.storage.contract import Recipe, Storage
from app.storage.disk.scratch import Scratch
from app.storage.disk.snapshot_store import SnapshotStore
from app.storage.disk.storage import DiskStorage
from app.storage.postgres.timeouts import TIMEOUTS, DatabaseTimeouts
from app.text.chunking import Chunking


@dataclass(frozen=True)
class DiskParts:
    """The parts that keep indexes on the disk, made once for a server or a command."""

    snapshots: SnapshotStore
    scratch: Scratch
    storage: DiskStorage


def make_disk_parts(settings: Settings) -> DiskParts:
    """Make the parts that keep indexes below INDEX_DIR."""
    snapshots, scratch = make_snapshots(settings), Scratch(settings.index.scratch_dir)
    cache_path = settings.index.dir / "embeddings.sqlite"
    return DiskParts(snapshots, scratch, DiskStorage(snapshots, scratch, cache_path=cache_path))


def make_indexer(settings: Settings, storage: Storage | None = None) -> Indexer:
    """Make an indexer, whose provider client is its own: it runs in a thread, beside the server's event loop.

    Args:
        storage: that of the settings where not given.
    """
    return Indexer(
        documents_dir=settings.documents.dir,
        reader=_make_reader(settings),
        recipe=make_recipe(settings),
        embedder=_make_embedder(settings),
        storage=storage or make_storage(settings),
        max_shrink=settings.index.max_shrink,
    )


def make_storage(settings: Settings, timeouts: DatabaseTimeouts = TIMEOUTS) -> Storage:
    """Make the storage of indexes: the database of DATABASE_URL, or the folder INDEX_DIR."""
    if settings.database.url is None:
        return make_disk_parts(settings).storage
    return make_postgres_storage(settings, timeouts)


def make_postgres_storage(settings: Settings, timeouts: DatabaseTimeouts = TIMEOUTS) -> Storage:
    """Make the storage in PostgreSQL; DATABASE_URL has to be set."""
    # The driver takes 0.2 s to import, for which those who keep indexes on the disk need not wait.
    from app.bootstrap import postgres  # noqa: PLC0415

    return postgres.make_postgres_storage(settings, timeouts)


def make_snapshots(settings: Settings) -> SnapshotStore:
    """Make the store of snapshots below INDEX_DIR."""
    return SnapshotStore(settings.index.dir, keep=settings.index.keep_snapshots)


def make_chunking(settings: Settings) -> Chunking:
    """Return how documents are cut into chunks."""
    return Chunking(settings.chunking.size, settings.chunking.overlap, settings.chunking.unit)


def embedding_provider(settings: Settings) -> EmbeddingProvider:
    """Return the provider of embeddings that the settings choose."""
    return EmbeddingProvider.OPENAI if settings.uses_openai_embeddings else EmbeddingProvider.LOCAL


def _make_reader(settings: Settings) -> ReaderPool[Prepared]:
    limits = ReadingLimits(
        timeout_s=settings.documents.parse_timeout_s,
        memory_mb=settings.documents.parse_memory_mb,
        inflated_mb=settings.documents.max_inflated_mb,
    )
    read = partial(prepare, chunking=make_chunking(settings), embed=not settings.uses_openai_embeddings)
    return ReaderPool(workers=settings.documents.parse_workers, limits=limits, read=read)


def make_recipe(settings: Settings) -> Recipe:
    """Return the recipe of the index that these settings ask for."""
    return Recipe(
        reader=READER_VERSION,
        chunking=make_chunking(settings),
        provider=embedding_provider(settings),
        model=settings.embedding.model if settings.uses_openai_embeddings else MODEL,
    )


def _make_embedder(settings: Settings) -> Embedder:
    if not settings.uses_openai_embeddings:
        return Embedder.of_readers(batch_size=settings.embedding.batch_size)
    # Its HTTP client takes 0.2 s to import, which those who have no provider need not wait for.
    from app.bootstrap.models import make_embedder  # noqa: PLC0415

    return make_embedder(settings)
