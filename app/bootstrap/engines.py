"""A query engine for each index that is served; the models behind them are shared."""

from __future__ import annotations

from dataclasses import dataclass

from llama_index.core import VectorStoreIndex

from app.domain.errors import FingerprintMismatch
from app.domain.fingerprint import Fingerprint
from app.embeddings.local import LocalEmbedding
from app.embeddings.openai import OpenAIEmbedding
from app.embeddings.query_cache import QueryEmbedder
from app.query.engine import RagQueryEngine, Retrieval
from app.query.synthesis.contract import Synthesizer
from app.storage.manifest import Manifest
from app.storage.nodes import Chunker
from app.storage.vector_store import ChunkStore
from app.text.chunking import Chunking


@dataclass(frozen=True)
class EngineMaker:
    """
    Attributes:
        fingerprint: provider and model that an index must have been built with.
    """

    embedding: LocalEmbedding | OpenAIEmbedding
    embedder: QueryEmbedder
    fingerprint: tuple[str, str]
    synthesizer: Synthesizer
    chunking: Chunking
    retrieval: Retrieval
    timeout_s: float

    def check_fingerprint(self, fingerprint: Fingerprint) -> None:
        """
        Raises:
            FingerprintMismatch: the index was built with another model than the settings name.
        """
        if (fingerprint.provider, fingerprint.model) != self.fingerprint:
            raise FingerprintMismatch(
                f"the index was built with {fingerprint.provider}/{fingerprint.model}, but the settings name "
                f"{'/'.join(self.fingerprint)}: run make reindex, or set them back"
            )

    def make(self, manifest: Manifest, store: ChunkStore) -> RagQueryEngine:
        index = VectorStoreIndex.from_vector_store(
            store,
            embed_model=self.embedding,
            # Given so that LlamaIndex does not make its default, which needs nltk's data.
            transformations=[Chunker(chunking=self.chunking)],
        )
        return RagQueryEngine(
            snapshot_id=manifest.id,
            index=index,
            store=store,
            embedder=self.embedder,
            fingerprint=manifest.embedding,
            synthesizer=self.synthesizer,
            retrieval=self.retrieval,
            timeout_s=self.timeout_s,
        )
