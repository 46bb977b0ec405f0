"""The query engine: finds passages for a question, and has an answer made from them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import asdict, replace

from llama_index.core import VectorStoreIndex

from app.domain.answer import Answer, Completed, Event, Retrieved, SearchResult, Token, Usage
from app.domain.deadline import start_deadline
from app.domain.errors import ModelTimeout, ModelUnavailable
from app.domain.query import Query
from app.observability.request_context import SpanAttributes, current_context
from app.observability.stage_timer import StageTimer
from app.query.llamaindex import LlamaIndexQueryEngine
from app.query.retriever import Retriever
from app.query.synthesis.contract import NO_CONTEXT_ANSWER, CondensedQuestion, Synthesizer


class RagQueryEngine(LlamaIndexQueryEngine):
    """Answers from one index; shared by all requests, and never changed.

    A provider is asked for embeddings, condensed questions and answers. Wherever that is done, here, in the
    retriever and in the synthesizers, ModelUnavailable is raised if the provider fails, and ModelTimeout if
    it is too slow; in a stream also after the first token.

    Args:
        index_id: given with each answer.
        timeout_s: the time for a whole answer.
    """

    def __init__(
        self,
        *,
        index_id: str,
        index: VectorStoreIndex,
        retriever: Retriever,
        synthesizer: Synthesizer,
        timeout_s: float,
    ) -> None:
        super().__init__(index)
        self.retriever = retriever
        self.synthesizer = synthesizer
        self._index_id = index_id
        self._timeout_s = timeout_s

    async def answer(self, query: Query) -> Answer:
        """Answer a question, or say that nothing was found."""
        timer = self._begin(query)
        question = await self._condense(query, timer)
        retrieved = await self._retrieve(query, question, timer)
        completed = self._nothing_found()
        if retrieved.passages:
            with self._generating(timer) as attributes:
                completed = await self.synthesizer.synthesize(
                    question.text, retrieved.passages, query.conversation
                )
                attributes.update(_span_attributes(completed))
        return self._finish(retrieved, completed, question, timer)

    async def stream(self, query: Query) -> AsyncGenerator[Event]:
        """Answer a question in events, in the order that `Event` gives.

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
            events = self.synthesizer.stream(question.text, retrieved.passages, query.conversation)
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
        """Find the passages for a question, however low they score; ask no language model."""
        timer = self._begin(query)
        passages = await self.retriever.find(query, timer)
        return SearchResult(passages, self._index_id, timer.timings())

    def self_test(self) -> None:
        """Search for something; raises what the store raises if the index cannot be searched."""
        self.retriever.self_test()

    def _begin(self, query: Query) -> StageTimer:
        start_deadline(self._timeout_s)
        context = current_context()
        context.index, context.question = self._index_id, query.text
        return StageTimer(context)

    async def _condense(self, query: Query, timer: StageTimer) -> CondensedQuestion:
        if not query.conversation.history:
            return CondensedQuestion(query.text)
        with self._generating(timer) as attributes:
            question = await self.synthesizer.condense(query.text, query.conversation)
            attributes.update(_usage_attributes(question.usage))
            return question

    async def _retrieve(self, query: Query, question: CondensedQuestion, timer: StageTimer) -> Retrieved:
        passages = await self.retriever.find_relevant(replace(query, text=question.text), timer)
        return Retrieved(passages, self._index_id)

    @contextmanager
    def _generating(self, timer: StageTimer) -> Iterator[SpanAttributes]:
        """Time the language model's work; if it fails, the error says that the passages can still be had."""
        try:
            with timer.stage("generate", model=self.synthesizer.model) as attributes:
                yield attributes
        except (ModelUnavailable, ModelTimeout) as error:
            detail = f"{error.detail}; retrieval works: POST /retrieve gives the passages"
            raise type(error)(detail) from error.__cause__

    def _nothing_found(self) -> Completed:
        return Completed(NO_CONTEXT_ANSWER, self.synthesizer.model)

    def _finish(
        self, retrieved: Retrieved, completed: Completed, question: CondensedQuestion, timer: StageTimer
    ) -> Answer:
        usage = _sum(question.usage, completed.usage)
        answer = Answer(retrieved, replace(completed, usage=usage, timings=timer.timings()))
        timer.answered(answer.status, usage)
        return answer


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
