"""The query engine: find passages, and make an answer from them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass
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

from app.domain.answer import Answer, AnswerStatus, Passage, SearchResult, Usage
from app.domain.deadline import start_deadline
from app.domain.errors import ModelTimeout, ModelUnavailable
from app.domain.fingerprint import Fingerprint
from app.domain.query import Filter, Query
from app.embeddings.query_cache import QueryEmbedder
from app.observability.request_context import SpanAttributes, current_context
from app.observability.stage_timer import StageTimer
from app.query.events import Answered, Found, Part
from app.query.synthesis.contract import (
    NO_CONTEXT_ANSWER,
    Standalone,
    Synthesis,
    Synthesizer,
)
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
        question = await self._standalone(query, timer)
        found = await self._find_relevant(query, question.text, timer)
        synthesis = self._nothing_found()
        if found.passages:
            with self._generating(timer) as attributes:
                synthesis = await self._synthesizer.synthesize(
                    question.text, found.passages, query.conversation
                )
                attributes.update(_span_attributes(synthesis))
        return self._answer(found, synthesis, question, timer)

    async def stream(self, query: Query) -> AsyncGenerator[Part]:
        """As `answer`: first what was found, then pieces of the text as they are made, then the whole.

        Closing it early ends what is being done for it, at the provider too.
        """
        timer = self._begin(query)
        question = await self._standalone(query, timer)
        found = await self._find_relevant(query, question.text, timer)
        yield found
        synthesis = self._nothing_found()
        if not found.passages:
            yield synthesis.text
        else:
            parts = self._synthesizer.stream(question.text, found.passages, query.conversation)
            with self._generating(timer) as attributes:
                async with aclosing(parts):
                    async for part in parts:
                        if isinstance(part, Synthesis):
                            synthesis = part
                            attributes.update(_span_attributes(synthesis))
                        else:
                            timer.first_token()
                            yield part
        yield Answered(self._answer(found, synthesis, question, timer))

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

    async def _standalone(self, query: Query, timer: StageTimer) -> Standalone:
        if not query.conversation.history:
            return Standalone(query.text)
        with self._generating(timer) as attributes:
            standalone = await self._synthesizer.standalone(query.text, query.conversation)
            attributes.update(_span_attributes(standalone))
            return standalone

    async def _find_relevant(self, query: Query, question: str, timer: StageTimer) -> Found:
        passages = await self._find(query, question, timer)
        if not passages or passages[0].score < self._retrieval.min_score:
            passages = []
        return Found(passages, self._snapshot_id)

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

    def _nothing_found(self) -> Synthesis:
        return Synthesis(NO_CONTEXT_ANSWER, self._synthesizer.model)

    def _answer(self, found: Found, synthesis: Synthesis, question: Standalone, timer: StageTimer) -> Answer:
        status = AnswerStatus.ANSWERED if found.passages else AnswerStatus.NO_CONTEXT
        usage = _sum(question.usage, synthesis.usage)
        timer.answered(status, usage)
        return Answer(
            text=synthesis.text,
            status=status,
            passages=found.passages,
            model=synthesis.model,
            index=self._snapshot_id,
            usage=usage,
            timings=timer.timings(),
            finish_reason=synthesis.finish_reason,
        )

    async def _aquery(self, query_bundle: QueryBundle) -> Response:
        """LlamaIndex's way in: the same answer, as its `Response`."""
        answer = await self.answer(Query(query_bundle.query_str))
        nodes = [
            NodeWithScore(node=(await self._store.aget_nodes([passage.chunk_id]))[0], score=passage.score)
            for passage in answer.passages
        ]
        return Response(response=answer.text, source_nodes=nodes, metadata=_metadata(answer))

    def _query(self, query_bundle: QueryBundle) -> Response:
        response: Response = asyncio_run(self._aquery(query_bundle))
        return response

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}


def _span_attributes(made: Synthesis | Standalone) -> SpanAttributes:
    attributes = asdict(made.usage) if made.usage else {}
    if isinstance(made, Synthesis):
        attributes |= {"made_by": made.model, "finish_reasons": [made.finish_reason]}
    return attributes


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
    return {
        "answer": answer.text,
        "status": answer.status.value,
        "sources": answer.sources,
        "citations": [asdict(passage) for passage in answer.passages],
        "model": answer.model,
        "index": answer.index,
        "usage": answer.usage and asdict(answer.usage),
        "timings_ms": asdict(answer.timings),
    }
