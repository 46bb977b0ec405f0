"""The query engine: find passages, and make an answer from them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.async_utils import asyncio_run
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import Response
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from app.domain.answer import Answer, Completed, Event, Passage, Retrieved, SearchResult, Token, Usage
from app.domain.deadline import start_deadline
from app.domain.errors import ModelTimeout, ModelUnavailable
from app.domain.fingerprint import Fingerprint
from app.domain.query import Filter, Query
from app.embeddings.query_cache import QueryEmbedder
from app.observability.request_context import SpanAttributes, current_context
from app.observability.stage_timer import StageTimer
from app.query.synthesis.contract import NO_CONTEXT_ANSWER, CondensedQuestion, Synthesizer
from app.storage.chunks import Hit
from app.storage.vector_store import ChunkStore


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


class RagQueryEngine(BaseQueryEngine):
    """Answers from one snapshot; shared by all requests, and never changed.

    What it raises where a provider is asked is ModelUnavailable and ModelTimeout.
    """

    def __init__(
        self,
        *,
        snapshot_id: str,
        index: VectorStoreIndex,
        store: ChunkStore,
        embedder: QueryEmbedder,
        fingerprint: Fingerprint,
        synthesizer: Synthesizer,
        retrieval: Retrieval,
        timeout_s: float,
    ) -> None:
        super().__init__(callback_manager=None)
        self.index = index
        self._store = store
        self._snapshot_id = snapshot_id
        self._embedder = embedder
        self._fingerprint = fingerprint
        self._synthesizer = synthesizer
        self._retrieval = retrieval
        self._timeout_s = timeout_s

    async def answer(self, query: Query) -> Answer:
        """Answer a question, or say that nothing was found."""
        timer = self._begin(query)
        question = await self._condense(query, timer)
        retrieved = await self._retrieve(query, question, timer)
        completed = self._nothing_found()
        if retrieved.passages:
            with self._generating(timer) as attributes:
                completed = await self._synthesizer.synthesize(
                    question.text, retrieved.passages, query.conversation
                )
                attributes.update(_span_attributes(completed))
        return self._finish(retrieved, completed, question, timer)

    async def stream(self, query: Query) -> AsyncGenerator[Event]:
        """Answer a question in events, as `Event` orders them.

        Closing the generator early ends the work, at the provider too.
        """
        timer = self._begin(query)
        question = await self._condense(query, timer)
        retrieved = await self._retrieve(query, question, timer)
        yield retrieved
        completed = self._nothing_found()
        if not retrieved.passages:
            yield Token(completed.text)
        else:
            events = self._synthesizer.stream(question.text, retrieved.passages, query.conversation)
            with self._generating(timer) as attributes:
                async with aclosing(events):
                    async for event in events:
                        match event:
                            case Completed():
                                completed = event
                                attributes.update(_span_attributes(completed))
                            case _:
                                timer.first_token()
                                yield event
        yield self._finish(retrieved, completed, question, timer).completed

    async def search(self, query: Query) -> SearchResult:
        """The passages for a question, however low they score."""
        timer = self._begin(query)
        passages = await self._find(query, query.text, timer)
        return SearchResult(passages, self._snapshot_id, timer.timings())

    def self_test(self) -> None:
        """Ask the store something; raises what it raises if the index cannot be searched."""
        probe = [1.0] * self._fingerprint.dimensions
        self._store.find(self._store_query("test", probe, 1, ()))

    def _begin(self, query: Query) -> StageTimer:
        start_deadline(self._timeout_s)
        context = current_context()
        context.index, context.question = self._snapshot_id, query.text
        return StageTimer(context)

    @contextmanager
    def _generating(self, timer: StageTimer) -> Iterator[SpanAttributes]:
        """Around what the language model does; where it fails, say that the passages can still be had."""
        try:
            with timer.stage("generate", model=self._synthesizer.model) as attributes:
                yield attributes
        except (ModelUnavailable, ModelTimeout) as error:
            detail = f"{error.detail}; retrieval works: POST /retrieve gives the passages"
            raise type(error)(detail) from error.__cause__

    async def _condense(self, query: Query, timer: StageTimer) -> CondensedQuestion:
        if not query.conversation.history:
            return CondensedQuestion(query.text)
        with self._generating(timer) as attributes:
            question = await self._synthesizer.condense(query.text, query.conversation)
            attributes.update(_usage_attributes(question.usage))
            return question

    async def _retrieve(self, query: Query, question: CondensedQuestion, timer: StageTimer) -> Retrieved:
        passages = await self._find(query, question.text, timer)
        if not passages or passages[0].score < self._retrieval.min_score:
            passages = []
        return Retrieved(passages, self._snapshot_id)

    async def _find(self, query: Query, question: str, timer: StageTimer) -> list[Passage]:
        with timer.stage("embed", model=self._fingerprint.model, dimensions=self._fingerprint.dimensions):
            vector = await self._embedder.embed(question, self._fingerprint)
        top_k = query.top_k or self._retrieval.top_k
        with timer.stage("retrieve", index=self._snapshot_id, top_k=top_k):
            hits = await self._store.afind(self._store_query(question, vector, top_k, query.filters))
            return [_passage(marker, hit) for marker, hit in enumerate(hits, start=1)]

    def _store_query(
        self, text: str, vector: list[float], top_k: int, filters: Sequence[Filter]
    ) -> VectorStoreQuery:
        return VectorStoreQuery(
            query_str=text,
            query_embedding=vector,
            similarity_top_k=top_k,
            mode=VectorStoreQueryMode.HYBRID,
            alpha=self._retrieval.dense_weight,
            filters=_metadata_filters(filters),
        )

    def _nothing_found(self) -> Completed:
        return Completed(NO_CONTEXT_ANSWER, self._synthesizer.model)

    def _finish(
        self, retrieved: Retrieved, completed: Completed, question: CondensedQuestion, timer: StageTimer
    ) -> Answer:
        usage = _sum(question.usage, completed.usage)
        answer = Answer(retrieved, replace(completed, usage=usage, timings=timer.timings()))
        timer.answered(answer.status, usage)
        return answer

    async def _aquery(self, query_bundle: QueryBundle) -> Response:
        """LlamaIndex's way in: the same answer, as its `Response`."""
        answer = await self.answer(Query(query_bundle.query_str))
        nodes = [
            NodeWithScore(node=(await self._store.aget_nodes([passage.chunk_id]))[0], score=passage.score)
            for passage in answer.retrieved.passages
        ]
        return Response(response=answer.completed.text, source_nodes=nodes, metadata=_metadata(answer))

    def _query(self, query_bundle: QueryBundle) -> Response:
        response: Response = asyncio_run(self._aquery(query_bundle))
        return response

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}


def _span_attributes(completed: Completed) -> SpanAttributes:
    return _usage_attributes(completed.usage) | {
        "response_model": completed.model,
        "finish_reasons": [completed.finish_reason],
    }


def _usage_attributes(usage: Usage | None) -> SpanAttributes:
    return asdict(usage) if usage else {}


def _sum(*usages: Usage | None) -> Usage | None:
    known = [usage for usage in usages if usage is not None]
    if not known:
        return None
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in known),
        completion_tokens=sum(usage.completion_tokens for usage in known),
    )


def _passage(marker: int, hit: Hit) -> Passage:
    chunk, metadata = hit.chunk, hit.chunk.metadata
    return Passage(
        marker=marker,
        document=metadata["document"],
        page=metadata["page"],
        heading=metadata["heading"],
        text=chunk.text,
        score=round(hit.score, 4),
        chunk_id=chunk.id,
    )


def _metadata_filters(filters: Sequence[Filter]) -> MetadataFilters | None:
    if not filters:
        return None
    return MetadataFilters(
        filters=[
            MetadataFilter(key=one.field, value=one.values, operator=FilterOperator.IN) for one in filters
        ]
    )


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
