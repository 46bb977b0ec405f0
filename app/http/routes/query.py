"""The routes that answer a question, or find the passages for it."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.http.query_events import QueryEventEncoder
from app.http.routes.dependencies import EngineDep, StreamTimesDep, problems
from app.http.schemas import (
    QueryRequest,
    QueryResponse,
    RetrieveResponse,
    encode_answer,
    encode_search_result,
)
from app.http.sse import EventStream

_EVENTS = """\
1. `event: citations` with `citations`, `sources` and `index`;
2. events without a name with `token`, pieces of the answer;
3. `event: answer` with all that `/query` gives;
4. `data: [DONE]`.

An error after the first ends the stream with `event: error` and a problem document, instead of `[DONE]`."""

router = APIRouter(tags=["query"], responses=problems(401, 413, 422, 429, 500, 502, 503, 504))

# The schema of each event; the description says what is in `data`.
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
async def stream(request: QueryRequest, engine: EngineDep, times: StreamTimesDep) -> EventStream:
    """Server-sent events. What fails before the first is an ordinary error."""
    return await EventStream.begin(engine.stream(request.to_domain()), QueryEventEncoder(), times)
