"""Put together the parts that serve an index."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import qdrant_edge as qdrant
from llama_index.core.base.embeddings.base import BaseEmbedding

from app.bootstrap.engines import EngineMaker
from app.bootstrap.indexing import (
    DiskParts,
    make_chunking,
    make_disk_parts,
    make_indexer,
    make_postgres_storage,
    make_recipe,
)
from app.bootstrap.models import make_embedding_model
from app.bootstrap.timing import PRODUCTION, Timing
from app.config.choices import DegradedAnswers
from app.config.settings import Settings
from app.embeddings.local import LocalEmbedding
from app.embeddings.openai import OpenAIEmbedding
from app.embeddings.query_cache import QueryEmbedder
from app.llms.openai import OpenAIChat
from app.observability.metrics import Metrics
from app.provider.client import Endpoint, ProviderClient
from app.provider.retry import ONLINE, RetryPolicy
from app.query.retriever import Retrieval
from app.query.synthesis.contract import Synthesizer
from app.query.synthesis.extractive import ExtractiveSynthesizer
from app.query.synthesis.fallback import FallbackSynthesizer
from app.query.synthesis.llm import LLMSynthesizer
from app.serving.index_manager import IndexManager
from app.serving.loader import Loader
from app.serving.served_index import ServedIndex
from app.serving.snapshot_loader import SnapshotLoader
from app.storage.contract import Storage
from app.storage.disk.scratch import Scratch
from app.storage.disk.snapshot import Snapshot
from app.storage.disk.vector_store import EdgeVectorStore

# nDCG@10 on SciFact and hit@1 on SQuAD 2.0 peak at 0.2 to 0.4 for the local model, and at 0.3 to 0.5 for
# all-MiniLM-L6-v2, which stands here for the stronger ones (benchmarks/README.md).
_DENSE_WEIGHT_LOCAL = 0.3
_DENSE_WEIGHT_OPENAI = 0.5

# 12 MB of vectors at 1,536 dimensions. A bundled model is faster than it would pay to remember.
_REMEMBERED_QUESTIONS = 2048


def make_embedding(
    settings: Settings, provider: ProviderClient, retry_policy: RetryPolicy = ONLINE
) -> LocalEmbedding | OpenAIEmbedding:
    """Make the embedding model that the settings choose."""
    if settings.uses_openai_embeddings:
        return OpenAIEmbedding(
            make_embedding_model(settings, provider, retry_policy),
            embed_batch_size=settings.embedding.batch_size,
        )
    return LocalEmbedding(embed_batch_size=settings.embedding.batch_size)


def make_synthesizer(
    settings: Settings, embedding: BaseEmbedding, provider: ProviderClient, retry_policy: RetryPolicy
) -> Synthesizer:
    """Make the synthesizer of answers that the settings choose."""
    if not settings.uses_openai_llm:
        return _make_extractive(embedding)
    llm = OpenAIChat(
        Endpoint(provider, "chat/completions", "the language model", retry_policy),
        model=settings.llm.model,
        stream_idle_s=settings.limits.stream_idle_timeout_s,
    )
    if settings.llm.degraded_answers is DegradedAnswers.EXTRACTIVE:
        return FallbackSynthesizer(LLMSynthesizer(llm), _make_extractive(embedding))
    return LLMSynthesizer(llm)


def _make_extractive(embedding: BaseEmbedding) -> ExtractiveSynthesizer:
    # Quoting ranks sentences by the local model whatever the index uses: it costs nothing.
    return ExtractiveSynthesizer(embedding if isinstance(embedding, LocalEmbedding) else LocalEmbedding())


def make_index_manager(
    settings: Settings, provider: ProviderClient, metrics: Metrics | None = None, timing: Timing = PRODUCTION
) -> IndexManager:
    """Make the part that loads and serves the index and builds it where there is none.

    Args:
        metrics: where nobody looks at them, not given.
    """
    metrics = metrics or Metrics()
    maker = make_engine_maker(settings, provider, timing.online)
    loader: Loader
    storage: Storage
    if settings.database.url is None:
        disk = make_disk_parts(settings)
        loader, storage = _make_snapshot_loader(disk, maker), disk.storage
    else:
        # The driver takes 0.2 s to import, for which those who keep their indexes on the disk need not wait.
        from app.bootstrap.generations import make_generation_loader  # noqa: PLC0415

        loader = make_generation_loader(settings, maker, metrics.pools, timing.database)
        storage = make_postgres_storage(settings, timing.database)
    return IndexManager(
        loader=loader,
        indexer=make_indexer(settings, storage),
        poll_s=settings.index.poll_s,
        observer=metrics.index,
    )


def _make_snapshot_loader(disk: DiskParts, maker: EngineMaker) -> SnapshotLoader:
    return SnapshotLoader(disk.snapshots, make_index_opener(maker, disk.scratch), disk.scratch)


def make_index_opener(maker: EngineMaker, scratch: Scratch) -> Callable[[Snapshot], ServedIndex]:
    """Return a function that checks a snapshot and loads it.

    It raises FingerprintMismatch, SnapshotDamaged, and whatever the engine does.
    """

    def open_index(snapshot: Snapshot) -> ServedIndex:
        maker.recipe.check_vectors_of(snapshot.manifest)
        with ExitStack() as stack:
            path = stack.enter_context(scratch.loadable(snapshot))
            with snapshot.times_kept():
                store = EdgeVectorStore.open(path, dense_weight=maker.retrieval.dense_weight)
            stack.callback(_close_shard, store.client, snapshot)
            return ServedIndex(snapshot, maker.make(snapshot.manifest, store), stack.pop_all().close)

    return open_index


def make_engine_maker(
    settings: Settings, provider: ProviderClient, retry_policy: RetryPolicy = ONLINE
) -> EngineMaker:
    """Make the maker of query engines, with models that all of them share."""
    embedding = make_embedding(settings, provider, retry_policy)
    default_weight = _DENSE_WEIGHT_OPENAI if settings.uses_openai_embeddings else _DENSE_WEIGHT_LOCAL
    remembered = _REMEMBERED_QUESTIONS if settings.uses_openai_embeddings else 0
    return EngineMaker(
        embedding=embedding,
        embedder=QueryEmbedder(embedding, remembered=remembered),
        recipe=make_recipe(settings),
        synthesizer=make_synthesizer(settings, embedding, provider, retry_policy),
        chunking=make_chunking(settings),
        retrieval=Retrieval(
            top_k=settings.retrieval.top_k,
            min_score=settings.retrieval.min_score,
            dense_weight=default_weight
            if settings.retrieval.dense_weight is None
            else settings.retrieval.dense_weight,
        ),
        timeout_s=settings.limits.request_timeout_s,
    )


def _close_shard(shard: qdrant.EdgeShard, snapshot: Snapshot) -> None:
    with snapshot.times_kept():
        shard.close()
