"""The query engine: find passages, and make an answer from them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.async_utils import asyncio_run
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.response.schema import Response
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from app.errors import ModelTimeout, ModelUnavailable
from app.schemas import (
    AnswerStatus,
    Citation,
    Filters,
    QueryRequest,
    QueryResponse,
    RetrievalTimings,
    RetrieveResponse,
    Timings,
)
from app.stores.edge import EdgeVectorStore, Hit
from app.synthesis.contract import NO_CONTEXT_ANSWER, Synthesis, Synthesizer


@dataclass(frozen=True)
class Retrieval:
    """How passages are searched for.

    Attributes:
        top_k: how many, where a request does not say.
        min_score: a best passage below this is not relevant, and no answer is made of it.
        dense_weight: of the embeddings' ranking; the rest is BM25's.
    """

    top_k: int
    min_score: float
    dense_weight: float


class Stopwatch:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.stages: dict[str, float] = {"embed": 0.0, "retrieve": 0.0, "generate": 0.0}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.stages[name] = _milliseconds(started)

    def timings(self) -> Timings:
        return Timings(**self.stages, total=_milliseconds(self._started))

    def retrieval_timings(self) -> RetrievalTimings:
        return RetrievalTimings(**self.stages, total=_milliseconds(self._started))


def _milliseconds(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)


class RagQueryEngine(BaseQueryEngine):
    """Answers from one snapshot; shared by all requests, and never changed."""

    def __init__(
        self,
        *,
        snapshot_id: str,
        index: VectorStoreIndex,
        store: EdgeVectorStore,
        embedding: BaseEmbedding,
        dimensions: int,
        synthesizer: Synthesizer,
        retrieval: Retrieval,
        timeout_s: float,
    ) -> None:
        super().__init__(callback_manager=None)
        self.index = index
        self._store = store
        self._snapshot_id = snapshot_id
        self._embedding = embedding
        self._dimensions = dimensions
        self._synthesizer = synthesizer
        self._retrieval = retrieval
        self._timeout_s = timeout_s

    async def answer(self, request: QueryRequest) -> QueryResponse:
        """Answer a question, or say that nothing was found.

        Raises:
            ModelUnavailable, ModelTimeout: the model provider failed, or the time was up.
        """
        watch = Stopwatch()
        async with self._deadline():
            passages = await self._find(request, watch)
            if not passages or passages[0].score < self._retrieval.min_score:
                passages, synthesis = [], Synthesis(NO_CONTEXT_ANSWER, usage=None)
            else:
                with watch.stage("generate"):
                    synthesis = await self._synthesizer.synthesize(request.query, passages)
        return QueryResponse(
            answer=synthesis.text,
            status=AnswerStatus.ANSWERED if passages else AnswerStatus.NO_CONTEXT,
            sources=list(dict.fromkeys(passage.document for passage in passages)),
            citations=passages,
            model=self._synthesizer.model,
            index=self._snapshot_id,
            usage=synthesis.usage,
            timings_ms=watch.timings(),
        )

    async def search(self, request: QueryRequest) -> RetrieveResponse:
        """The passages for a question, however low they score.

        Raises:
            ModelUnavailable, ModelTimeout: the embedding model failed, or the time was up.
        """
        watch = Stopwatch()
        async with self._deadline():
            passages = await self._find(request, watch)
        return RetrieveResponse(
            citations=passages, index=self._snapshot_id, timings_ms=watch.retrieval_timings()
        )

    def self_test(self) -> None:
        """Ask the store something; raises what it raises if the index cannot be searched."""
        probe = [1.0] * self._dimensions
        self._store.find(self._store_query("test", probe, 1, None))

    async def _find(self, request: QueryRequest, watch: Stopwatch) -> list[Citation]:
        with watch.stage("embed"):
            vector = await self._embed(request.query)
        with watch.stage("retrieve"):
            top_k = request.top_k or self._retrieval.top_k
            query = self._store_query(request.query, vector, top_k, request.filters)
            hits = await self._store.afind(query)
            return [_citation(marker, hit) for marker, hit in enumerate(hits, start=1)]

    async def _embed(self, text: str) -> list[float]:
        vector = await self._embedding.aget_query_embedding(text)
        if len(vector) != self._dimensions:
            raise ModelUnavailable(
                f"the embedding model returned {len(vector)} dimensions, and the index has {self._dimensions}"
            )
        return vector

    def _store_query(
        self, text: str, vector: list[float], top_k: int, filters: Filters | None
    ) -> VectorStoreQuery:
        return VectorStoreQuery(
            query_str=text,
            query_embedding=vector,
            similarity_top_k=top_k,
            mode=VectorStoreQueryMode.HYBRID,
            alpha=self._retrieval.dense_weight,
            filters=_metadata_filters(filters),
        )

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except TimeoutError as error:
            raise ModelTimeout(f"no answer within REQUEST_TIMEOUT_S ({self._timeout_s:g} s)") from error

    async def _aquery(self, query_bundle: QueryBundle) -> Response:
        """LlamaIndex's way in: the same answer, as its `Response`."""
        request = QueryRequest(query=query_bundle.query_str)
        answered = await self.answer(request)
        nodes = [
            NodeWithScore(node=self._store.get_nodes([citation.chunk_id])[0], score=citation.score)
            for citation in answered.citations
        ]
        return Response(
            response=answered.answer, source_nodes=nodes, metadata=answered.model_dump(mode="json")
        )

    def _query(self, query_bundle: QueryBundle) -> Response:
        response: Response = asyncio_run(self._aquery(query_bundle))
        return response

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}


def _citation(marker: int, hit: Hit) -> Citation:
    metadata = hit.payload["metadata"]
    return Citation(
        marker=marker,
        document=metadata["document"],
        page=metadata["page"],
        heading=metadata["heading"],
        text=hit.payload["text"],
        score=round(hit.score, 4),
        chunk_id=hit.payload["id"],
    )


def _metadata_filters(filters: Filters | None) -> MetadataFilters | None:
    if filters is None:
        return None
    wanted = filters.model_dump(exclude_none=True)
    return MetadataFilters(
        filters=[
            MetadataFilter(key=key, value=values, operator=FilterOperator.IN)
            for key, values in wanted.items()
        ]
    )
