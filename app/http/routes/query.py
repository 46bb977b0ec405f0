"""Asking."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import orjson
from fastapi import APIRouter, Response

from app.domain.errors import RagError
from app.http.problems import problem_json
from app.http.routes.dependencies import EngineDep, problems
from app.http.schemas import (
    CitationsEvent,
    QueryRequest,
    QueryResponse,
    RetrieveResponse,
    citations_of,
    encode_answer,
    encode_search_result,
)
from app.http.sse import DONE, EventStream, event
from app.query.events import Answered, Found, Part

_EVENTS = """\
1. `event: citations` with `citations`, `sources` and `index`;
2. events without a name with `token`, pieces of the answer;
3. `event: answer` with all that `/query` gives;
4. `data: [DONE]`.

An error after the first ends the stream with `event: error` and a problem document, instead of `[DONE]`."""

router = APIRouter(tags=["query"], responses=problems(401, 413, 422, 429, 500, 502, 503, 504))

# Of each; what is in `data`, the description says.
_EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}


@router.post("/query", summary="Answer a question from the documents", response_model=QueryResponse)
async def query(request: QueryRequest, engine: EngineDep) -> Response:
    """The answer cites its passages: `[1]` in it is the citation with marker 1."""
    answer = await engine.answer(request.to_domain())
    return Response(encode_answer(answer), media_type="application/json")


@router.post("/retrieve", summary="Find the passages for a question", response_model=RetrieveResponse)
async def retrieve(request: QueryRequest, engine: EngineDep) -> Response:
    """The same passages that `/query` would use, without an answer. None is left out for a low score."""
    result = await engine.search(request.to_domain())
    return Response(encode_search_result(result), media_type="application/json")


@router.post(
    "/query/stream",
    summary="Answer a question as the answer is made",
    status_code=200,
    response_class=EventStream,
    responses={200: {"description": _EVENTS, "content": {EventStream.media_type: {"schema": _EVENT}}}},
)
async def stream(request: QueryRequest, engine: EngineDep) -> EventStream:
    """Server-sent events. What fails before the first is an ordinary error."""
    parts = engine.stream(request.to_domain())
    found = await anext(parts)
    return EventStream(_events(found, parts), _error_event)


async def _events(found: Part, parts: AsyncGenerator[Part]) -> AsyncGenerator[bytes]:
    async with aclosing(parts):
        yield _encoded(found)
        async for part in parts:
            yield _encoded(part)
        yield DONE


def _encoded(part: Part) -> bytes:
    match part:
        case Found():
            data = CitationsEvent(
                citations=citations_of(part.passages), sources=part.sources, index=part.index
            )
            return event(orjson.dumps(data), "citations")
        case Answered():
            return event(encode_answer(part.answer), "answer")
        case _:
            return event(orjson.dumps({"token": part}))


def _error_event(error: RagError) -> bytes:
    return event(problem_json(error), "error")
