"""The one place where parts are put together, for the server and for the scripts."""

from __future__ import annotations

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding

from app.chunking import Chunker, Chunking
from app.documents import Reader
from app.embeddings.local import LocalEmbedding
from app.engine import RagQueryEngine, Retrieval
from app.errors import FingerprintMismatch
from app.index_manager import IndexManager, ServedIndex
from app.indexer import Indexer
from app.settings import EmbeddingProvider, Settings
from app.snapshots import Snapshot, SnapshotStore
from app.stores.edge import EdgeVectorStore
from app.synthesis.contract import Synthesizer
from app.synthesis.extractive import ExtractiveSynthesizer

# nDCG@10 on SciFact and hit@1 on SQuAD 2.0 peak at 0.2 to 0.4 for the local model, and at 0.3 to 0.5 for
# all-MiniLM-L6-v2, which stands here for the stronger ones (benchmarks/README.md).
_DENSE_WEIGHT_LOCAL = 0.3
_DENSE_WEIGHT_OPENAI = 0.5

# The client's own retries are the only ones.
_PROVIDER_RETRIES = 2


def make_embedding(settings: Settings) -> BaseEmbedding:
    if not settings.uses_openai_embeddings:
        return LocalEmbedding(embed_batch_size=settings.embedding_batch_size)
    from app.embeddings.openai import CheckedOpenAIEmbedding  # noqa: PLC0415 - 2 s to import, for nothing if unset

    return CheckedOpenAIEmbedding(
        model_name=settings.embedding_model,
        api_key=settings.api_key_or_placeholder,
        api_base=settings.openai_base_url,
        embed_batch_size=settings.embedding_batch_size,
        timeout=settings.request_timeout_s,
        max_retries=_PROVIDER_RETRIES,
    )


def make_synthesizer(settings: Settings, embedding: BaseEmbedding) -> Synthesizer:
    if not settings.uses_openai_llm:
        # Quoting ranks sentences by the local model whatever the index uses: it costs nothing.
        local = embedding if isinstance(embedding, LocalEmbedding) else LocalEmbedding()
        return ExtractiveSynthesizer(local)
    from app.synthesis.llm import ChatModel, LLMSynthesizer  # noqa: PLC0415 - as above

    return LLMSynthesizer(
        ChatModel(
            model=settings.llm_model,
            api_key=settings.api_key_or_placeholder,
            api_base=settings.openai_base_url,
            temperature=0,
            timeout=settings.request_timeout_s,
            max_retries=0,
            client_retries=_PROVIDER_RETRIES,
        )
    )


def make_indexer(settings: Settings, embedding: BaseEmbedding) -> Indexer:
    return Indexer(
        documents_dir=settings.documents_dir,
        reader=Reader(
            settings.documents_dir, workers=settings.parse_workers, timeout_s=settings.parse_timeout_s
        ),
        chunking=make_chunking(settings),
        embedding=embedding,
        embedding_provider=embedding_provider(settings),
        snapshots=make_snapshots(settings),
    )


def make_chunking(settings: Settings) -> Chunking:
    return Chunking(settings.chunk_size, settings.overlap, settings.chunk_unit)


def make_snapshots(settings: Settings) -> SnapshotStore:
    return SnapshotStore(settings.index_dir, keep=settings.keep_snapshots)


def embedding_provider(settings: Settings) -> EmbeddingProvider:
    return EmbeddingProvider.OPENAI if settings.uses_openai_embeddings else EmbeddingProvider.LOCAL


def make_index_manager(settings: Settings) -> IndexManager:
    embedding = make_embedding(settings)
    synthesizer = make_synthesizer(settings, embedding)

    def open_index(snapshot: Snapshot) -> ServedIndex:
        return _open_index(snapshot, settings, embedding, synthesizer)

    return IndexManager(
        snapshots=make_snapshots(settings),
        open_index=open_index,
        indexer=make_indexer(settings, embedding),
        poll_s=settings.index_poll_s,
    )


def _open_index(
    snapshot: Snapshot, settings: Settings, embedding: BaseEmbedding, synthesizer: Synthesizer
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
        embedding=embedding,
        dimensions=fingerprint.dimensions,
        synthesizer=synthesizer,
        retrieval=retrieval,
        timeout_s=settings.request_timeout_s,
    )
    return ServedIndex(snapshot, engine)
