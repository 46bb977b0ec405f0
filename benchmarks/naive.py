"""The naive service's index, built by LlamaIndex's tutorial with its default store.

The embedding model is the service's own, and there is no LLM, so that only index and store are compared.
"""

from __future__ import annotations

from pathlib import Path

from llama_index.core import (
    SimpleDirectoryReader,
    StorageContext,
    VectorStoreIndex,
    load_index_from_storage,
)
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.schema import TextNode


class NaiveIndex:
    """A LlamaIndex `VectorStoreIndex` with its default store."""

    def __init__(self, index: VectorStoreIndex) -> None:
        self._index = index

    @classmethod
    def of_documents(
        cls, folder: Path, embedding: BaseEmbedding, splitter: TokenTextSplitter | None = None
    ) -> NaiveIndex:
        """Read, split and embed the files of a folder."""
        documents = SimpleDirectoryReader(str(folder)).load_data()
        return cls(
            VectorStoreIndex.from_documents(
                documents, embed_model=embedding, transformations=[splitter or TokenTextSplitter()]
            )
        )

    @classmethod
    def of_nodes(cls, nodes: list[TextNode], embedding: BaseEmbedding) -> NaiveIndex:
        """Make an index of nodes that have embeddings, so that it has the same chunks as the service."""
        return cls(VectorStoreIndex(nodes, embed_model=embedding, transformations=[TokenTextSplitter()]))

    @classmethod
    def load(cls, folder: Path, embedding: BaseEmbedding) -> NaiveIndex:
        """Load the index that `save` wrote."""
        storage = StorageContext.from_defaults(persist_dir=str(folder))
        # The default, SentenceSplitter, reads nltk's data and fails if packages are hard-linked. No splitter
        # is used after loading, and this one is faster to make.
        index = load_index_from_storage(storage, embed_model=embedding, transformations=[TokenTextSplitter()])
        assert isinstance(index, VectorStoreIndex)
        return cls(index)

    def save(self, folder: Path) -> None:
        self._index.storage_context.persist(str(folder))

    @property
    def chunks(self) -> int:
        return len(self._index.docstore.docs)

    def query_engine(self, top_k: int) -> BaseQueryEngine:
        return self._index.as_query_engine(llm=MockLLM(max_tokens=1), similarity_top_k=top_k)

    def retriever(self, top_k: int) -> BaseRetriever:
        return self._index.as_retriever(similarity_top_k=top_k)
