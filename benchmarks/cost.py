"""The processor time of each step of a question, in a process without a server around it.

The application is called as a server would call it, so the figures lack only the server itself and its wakeup
for each packet.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import uvloop
from fastapi import FastAPI, Response

from app.config.choices import EmbeddingProvider, LLMProvider
from app.config.settings import Settings
from app.domain.answer import Passage
from app.domain.query import NO_CONVERSATION, Query
from app.http.routes.dependencies import EngineDep
from app.http.schemas import QueryRequest
from app.main import create_app
from app.query.engine import RagQueryEngine
from benchmarks.corpus import service_index
from benchmarks.questions import all_questions
from benchmarks.report import Report
from benchmarks.sides import Samples
from benchmarks.upstream import Provider, provider

_USERS = 20
_QUESTIONS = 1_000
_CHUNKS = 20_000


def measure() -> Report:
    """Measure both levels: with a provider's models, and without a key."""
    report = Report("cost")
    with Samples.indexed() as samples, provider(Provider()) as upstream:
        settings = Settings(index_dir=samples.index, openai_base_url=f"{upstream.url}/v1")
        uvloop.run(_measure(report, "OpenAI level", settings))
    settings = Settings(
        index_dir=service_index(_CHUNKS),
        embedding_provider=EmbeddingProvider.LOCAL,
        llm_provider=LLMProvider.EXTRACTIVE,
    )
    uvloop.run(_measure(report, f"no key, {_CHUNKS:,} chunks", settings))
    return report.save()


async def _measure(report: Report, level: str, settings: Settings) -> None:
    app = create_app(settings)

    @app.post("/nothing")
    async def nothing(_: QueryRequest, __: EngineDep) -> Response:
        return Response(b"{}", media_type="application/json")

    new_questions = all_questions()
    async with app.router.lifespan_context(app) as state:
        assert state is not None
        engine = state["manager"].current.engine
        found = [await _passages(engine, question) for question in islice(new_questions, _QUESTIONS)]
        steps: dict[str, Callable[[str, Sequence[Passage]], Awaitable[object]]] = {
            "a request that does nothing": lambda question, _: _post(app, state, "/nothing", question),
            "embedding the question": lambda question, _: engine.retriever.embed(question),
            "retrieval, the embedding known": lambda question, _: _passages(engine, question),
            "the answer from its passages": lambda question, passages: engine.synthesizer.synthesize(
                question, passages, NO_CONVERSATION
            ),
            "the same once more": lambda question, passages: engine.synthesizer.synthesize(
                question, passages, NO_CONVERSATION
            ),
            "a whole query": lambda question, _: _post(app, state, "/query", question),
        }
        asked: list[tuple[str, Sequence[Passage]]] = []
        for name, step in steps.items():
            if "known" not in name:
                asked = list(zip(islice(new_questions, _QUESTIONS), found, strict=True))
            report.add(f"{level}, {name}", await _cost_ms(step, asked), "ms")


async def _cost_ms(
    step: Callable[[str, Sequence[Passage]], Awaitable[object]], asked: list[tuple[str, Sequence[Passage]]]
) -> float:
    """Measure the processor time of one step, with as many concurrent users as in `online`."""
    waiting = iter(asked)

    async def user() -> None:
        for question, passages in waiting:
            await step(question, passages)

    started = time.process_time()
    await asyncio.gather(*(user() for _ in range(_USERS)))
    return (time.process_time() - started) * 1000 / len(asked)


async def _passages(engine: RagQueryEngine, question: str) -> Sequence[Passage]:
    return (await engine.search(Query(question))).passages


async def _post(app: FastAPI, state: Mapping[str, Any], path: str, question: str) -> None:
    unread = [{"type": "http.request", "body": json.dumps({"query": question}).encode(), "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not unread:
            await asyncio.Event().wait()
        return unread.pop()

    async def send(message: Any) -> None:
        assert message.get("status", 200) == 200, message

    headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
    scope = {
        **{"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1"},
        **{"method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": ""},
        **{"scheme": "http", "headers": headers, "client": None, "server": None, "state": dict(state)},
    }
    await app(scope, receive, send)
