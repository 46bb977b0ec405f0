"""Make a query engine for each index that is served; the models behind them are shared."""

from __future__ import annotations

from dataclasses import dataclass

from llama_index.core import VectorStoreIndex

from app.embeddings.local import LocalEmbedding
from app.embeddings.openai import OpenAIEmbedding
from app.embeddings.query_cache import QueryEmbedder
from app.query.engine import RagQueryEngine
from app.query.retriever import Retrieval, Retriever
from app.query.synthesis.contract import Synthesizer
from app.storage.contract import Recipe
from app.storage.manifest import Manifest
from app.storage.nodes import Chunker
from app.storage.vector_store import ChunkStore
from app.text.chunking import Chunking


@dataclass(frozen=True)
class EngineMaker:
    """Makes the query engines of all indexes that one server serves.

    Attributes:
        recipe: of the settings; its vectors must be those of an index that is opened.
    """

    embedding: LocalEmbedding | OpenAIEmbedding
    embedder: QueryEmbedder
    recipe: Recipe
    synthesizer: Synthesizer
    chunking: Chunking
    retrieval: Retrieval
    timeout_s: float

    def make(self, manifest: Manifest, store: ChunkStore) -> RagQueryEngine:
        """Make the engine that answers from an index, opened as `store`."""
        index = VectorStoreIndex.from_vector_store(
            store,
            embed_model=self.embedding,
            # Given so that LlamaIndex does not make its default, which needs nltk's data.
            transformations=[Chunker(chunking=self.chunking)],
        )
        retriever = Retriever(
            index_id=manifest.id,
            store=store,
            embedder=self.embedder,
            fingerprint=manifest.embedding,
            retrieval=self.retrieval,
        )
        return RagQueryEngine(
            index_id=manifest.id,
            index=index,
            retriever=retriever,
            synthesizer=self.synthesizer,
            timeout_s=self.timeout_s,
        )
