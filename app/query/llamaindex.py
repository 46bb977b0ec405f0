"""The query engine as LlamaIndex knows it, so that it can be a part of LlamaIndex's workflows and tools."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.async_utils import asyncio_run
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import Response
from llama_index.core.schema import NodeWithScore, QueryBundle

from app.domain.answer import Answer
from app.domain.query import Query


class LlamaIndexQueryEngine(BaseQueryEngine):
    """Gives LlamaIndex's `query` and `aquery` the answers of `answer`.

    Attributes:
        index: over the store that is searched; LlamaIndex makes its own retrievers from it.
    """

    def __init__(self, index: VectorStoreIndex) -> None:
        super().__init__(callback_manager=None)
        self.index = index

    @abstractmethod
    async def answer(self, query: Query) -> Answer:
        """Answer a question, or say that nothing was found."""

    async def _aquery(self, query_bundle: QueryBundle) -> Response:
        answer = await self.answer(Query(query_bundle.query_str))
        store = self.index.vector_store
        nodes = [
            NodeWithScore(node=(await store.aget_nodes([passage.chunk_id]))[0], score=passage.score)
            for passage in answer.retrieved.passages
        ]
        return Response(response=answer.completed.text, source_nodes=nodes, metadata=_metadata(answer))

    def _query(self, query_bundle: QueryBundle) -> Response:
        response: Response = asyncio_run(self._aquery(query_bundle))
        return response

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}


def _metadata(answer: Answer) -> dict[str, Any]:
    retrieved, completed = answer.retrieved, answer.completed
    return {
        "answer": completed.text,
        "status": answer.status.value,
        "sources": retrieved.sources,
        "citations": [asdict(passage) for passage in retrieved.passages],
        "model": completed.model,
        "index": retrieved.index,
        "usage": completed.usage and asdict(completed.usage),
        "timings_ms": asdict(completed.timings),
    }
