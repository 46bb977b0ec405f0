"""The one place where parts are put together, for the server and for the scripts."""

from __future__ import annotations

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding

from app.chunking import Chunker, Chunking
from app.documents import Reader
from app.embeddings.local import LocalEmbedding
from app.embeddings.provider import ProviderEmbedding
from app.embeddings.query import QueryEmbedder
from app.engine import RagQueryEngine, Retrieval
from app.errors import FingerprintMismatch
from app.index_manager import IndexManager, ServedIndex
from app.indexer import Indexer
from app.provider.chat import ChatModel
from app.provider.client import Endpoint, ProviderClient
from app.settings import DegradedAnswers, EmbeddingProvider, Settings
from app.snapshots import Snapshot, SnapshotStore
from app.stores.edge import EdgeVectorStore
from app.synthesis.contract import Synthesizer
from app.synthesis.degraded import DegradingSynthesizer
from app.synthesis.extractive import ExtractiveSynthesizer
from app.synthesis.llm import LLMSynthesizer

# nDCG@10 on SciFact and hit@1 on SQuAD 2.0 peak at 0.2 to 0.4 for the local model, and at 0.3 to 0.5 for
# all-MiniLM-L6-v2, which stands here for the stronger ones (benchmarks/README.md).
_DENSE_WEIGHT_LOCAL = 0.3
_DENSE_WEIGHT_OPENAI = 0.5

# 12 MB of vectors at 1,536 dimensions. A bundled model is faster than it would pay to remember.
_REMEMBERED_QUESTIONS = 2048


def make_provider(settings: Settings) -> ProviderClient:
    """The model provider's client; nothing is connected before it is asked."""
    return ProviderClient(settings.openai_base_url, settings.api_key_or_placeholder)


def make_embedding(settings: Settings, provider: ProviderClient) -> LocalEmbedding | ProviderEmbedding:
    if not settings.uses_openai_embeddings:
        return LocalEmbedding(embed_batch_size=settings.embedding_batch_size)
    return ProviderEmbedding(
        Endpoint(provider, "embeddings", "the embedding model"),
        model_name=settings.embedding_model,
        embed_batch_size=settings.embedding_batch_size,
    )


def make_synthesizer(settings: Settings, embedding: BaseEmbedding, provider: ProviderClient) -> Synthesizer:
    if not settings.uses_openai_llm:
        return _make_extractive(embedding)
    llm = ChatModel(
        Endpoint(provider, "chat/completions", "the language model"),
        model=settings.llm_model,
        stream_idle_s=settings.stream_idle_timeout_s,
    )
    if settings.degraded_answers is DegradedAnswers.EXTRACTIVE:
        return DegradingSynthesizer(LLMSynthesizer(llm), _make_extractive(embedding))
    return LLMSynthesizer(llm)


def _make_extractive(embedding: BaseEmbedding) -> ExtractiveSynthesizer:
    # Quoting ranks sentences by the local model whatever the index uses: it costs nothing.
    return ExtractiveSynthesizer(embedding if isinstance(embedding, LocalEmbedding) else LocalEmbedding())


def make_indexer(settings: Settings) -> Indexer:
    """With a provider's client of its own: it works in a thread, beside the server's event loop."""
    return Indexer(
        documents_dir=settings.documents_dir,
        reader=Reader(
            settings.documents_dir, workers=settings.parse_workers, timeout_s=settings.parse_timeout_s
        ),
        chunking=make_chunking(settings),
        embedding=make_embedding(settings, make_provider(settings)),
        embedding_provider=embedding_provider(settings),
        snapshots=make_snapshots(settings),
    )


def make_chunking(settings: Settings) -> Chunking:
    return Chunking(settings.chunk_size, settings.overlap, settings.chunk_unit)


def make_snapshots(settings: Settings) -> SnapshotStore:
    return SnapshotStore(settings.index_dir, keep=settings.keep_snapshots)


def embedding_provider(settings: Settings) -> EmbeddingProvider:
    return EmbeddingProvider.OPENAI if settings.uses_openai_embeddings else EmbeddingProvider.LOCAL


def make_index_manager(settings: Settings, provider: ProviderClient) -> IndexManager:
    embedding = make_embedding(settings, provider)
    synthesizer = make_synthesizer(settings, embedding, provider)
    remembered = _REMEMBERED_QUESTIONS if settings.uses_openai_embeddings else 0
    embedder = QueryEmbedder(embedding, remembered=remembered)

    def open_index(snapshot: Snapshot) -> ServedIndex:
        return _open_index(snapshot, settings, embedding, embedder, synthesizer)

    return IndexManager(
        snapshots=make_snapshots(settings),
        open_index=open_index,
        indexer=make_indexer(settings),
        poll_s=settings.index_poll_s,
    )


def _open_index(
    snapshot: Snapshot,
    settings: Settings,
    embedding: BaseEmbedding,
    embedder: QueryEmbedder,
    synthesizer: Synthesizer,
) -> ServedIndex:
    fingerprint = snapshot.manifest.embedding
    provider = embedding_provider(settings)
    if (fingerprint.provider, fingerprint.model) != (provider, embedding.model_name):
        raise FingerprintMismatch(
            f"the index was built with {fingerprint.provider}/{fingerprint.model}, but the settings name "
            f"{provider}/{embedding.model_name}: run make reindex, or set them back"
        )
    default_weight = _DENSE_WEIGHT_OPENAI if settings.uses_openai_embeddings else _DENSE_WEIGHT_LOCAL
    retrieval = Retrieval(
        top_k=settings.top_k,
        min_score=settings.min_score,
        dense_weight=default_weight if settings.dense_weight is None else settings.dense_weight,
    )
    store = EdgeVectorStore.open(snapshot.path, dense_weight=retrieval.dense_weight)
    index = VectorStoreIndex.from_vector_store(
        store,
        embed_model=embedding,
        # Given so that LlamaIndex does not make its default, which needs nltk's data.
        transformations=[Chunker(chunking=make_chunking(settings))],
    )
    engine = RagQueryEngine(
        snapshot_id=snapshot.manifest.id,
        index=index,
        store=store,
        embedder=embedder,
        fingerprint=fingerprint,
        synthesizer=synthesizer,
        retrieval=retrieval,
        timeout_s=settings.request_timeout_s,
    )
    return ServedIndex(snapshot, engine)
