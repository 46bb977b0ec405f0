"""What builds indexes. Without LlamaIndex, which takes two seconds to import: an operator waits for that."""

from __future__ import annotations

from functools import partial

from app.cutting import Chunking
from app.documents import Reader
from app.embeddings.cache import cache_scope
from app.embeddings.provider_model import ProviderModel
from app.embeddings.static import MODEL
from app.indexing.before import Recipe
from app.indexing.indexer import Indexer
from app.indexing.vectors import Embedder
from app.preparing import Prepared, prepare
from app.provider.client import OPENAI_URL, Endpoint, ProviderClient
from app.provider.patience import ONLINE, Patience, offline
from app.reading import READER_VERSION
from app.reading_limits import ReadingLimits
from app.settings import EmbeddingProvider, Settings
from app.snapshots import ChunkingInfo, Scratch, SnapshotStore

# US dollars for a million tokens, as OpenAI lists them.
_OPENAI_PRICES = {
    "text-embedding-3-small": 0.02,
    "text-embedding-3-large": 0.13,
    "text-embedding-ada-002": 0.10,
}


def make_indexer(settings: Settings) -> Indexer:
    """With a provider's client of its own: it works in a thread, beside the server's event loop."""
    return Indexer(
        documents_dir=settings.documents_dir,
        index_dir=settings.index_dir,
        reader=_make_reader(settings),
        recipe=_make_recipe(settings),
        embedder=_make_embedder(settings),
        snapshots=make_snapshots(settings),
        scratch=Scratch(settings.scratch_dir),
        max_shrink=settings.max_shrink,
    )


def make_snapshots(settings: Settings) -> SnapshotStore:
    return SnapshotStore(settings.index_dir, keep=settings.keep_snapshots)


def make_provider(settings: Settings) -> ProviderClient:
    """The model provider's client; nothing is connected before it is asked."""
    return ProviderClient(settings.openai_base_url, settings.api_key_or_placeholder)


def make_embedding_model(
    settings: Settings, provider: ProviderClient, patience: Patience = ONLINE
) -> ProviderModel:
    endpoint = Endpoint(provider, "embeddings", "the embedding model", patience)
    return ProviderModel(endpoint, settings.embedding_model)


def make_chunking(settings: Settings) -> Chunking:
    return Chunking(settings.chunk_size, settings.overlap, settings.chunk_unit)


def embedding_provider(settings: Settings) -> EmbeddingProvider:
    return EmbeddingProvider.OPENAI if settings.uses_openai_embeddings else EmbeddingProvider.LOCAL


def _make_reader(settings: Settings) -> Reader[Prepared]:
    limits = ReadingLimits(
        timeout_s=settings.parse_timeout_s,
        memory_mb=settings.parse_memory_mb,
        inflated_mb=settings.max_inflated_mb,
    )
    read = partial(prepare, chunking=make_chunking(settings), embed=not settings.uses_openai_embeddings)
    return Reader(workers=settings.parse_workers, limits=limits, read=read)


def _make_recipe(settings: Settings) -> Recipe:
    return Recipe(
        reader=READER_VERSION,
        chunking=ChunkingInfo(size=settings.chunk_size, overlap=settings.overlap, unit=settings.chunk_unit),
        provider=embedding_provider(settings),
        model=settings.embedding_model if settings.uses_openai_embeddings else MODEL,
    )


def _make_embedder(settings: Settings) -> Embedder:
    is_local = not settings.uses_openai_embeddings
    patience = offline(attempt_s=settings.request_timeout_s, retry_s=settings.embedding_retry_s)
    base_url = settings.openai_base_url or OPENAI_URL
    price = 0.0 if is_local else settings.embedding_price
    if price is None and settings.openai_base_url is None:
        price = _OPENAI_PRICES.get(settings.embedding_model)
    return Embedder(
        model=None if is_local else make_embedding_model(settings, make_provider(settings), patience),
        scope=cache_scope(embedding_provider(settings), settings.embedding_model, base_url),
        batch_size=settings.embedding_batch_size,
        concurrency=settings.embedding_concurrency,
        price=price,
        cache_bytes=settings.embedding_cache_mb * 1024 * 1024,
    )
