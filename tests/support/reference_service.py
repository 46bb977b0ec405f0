"""The smallest service that keeps the promises of POST /query/stream, to test the checks themselves."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

_TOKENS = ["Parental leave", " lasts", " 16 weeks", " [1]", "."]
_CITATION = {
    "marker": 1,
    "document": "leave.md",
    "page": None,
    "heading": "Leave > Parental",
    "text": "Parental leave lasts 16 weeks.",
    "score": 0.83,
    "chunk_id": "1",
}
_ANSWER = {
    "answer": "".join(_TOKENS),
    "status": "answered",
    "sources": ["leave.md"],
    "citations": [_CITATION],
    "model": "reference",
    "index": "20261120T101500Z-5f3a9c",
    "usage": None,
    "timings_ms": {"embed": 0.1, "retrieve": 0.1, "generate": 0.1, "total": 0.3},
}


def _event(data: Any, name: str = "") -> str:
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n"


async def _stream(request: Request) -> Response:
    if request.method == "HEAD":
        return _refusal(405, "method_not_allowed", Allow="POST")
    if not (await request.json()).get("query"):
        return _refusal(422, "invalid_request")
    return StreamingResponse(
        _events(),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", "X-Request-ID": "1"},
    )


async def _events() -> AsyncIterator[str]:
    yield _event({name: _ANSWER[name] for name in ("citations", "sources", "index")}, "citations")
    for token in _TOKENS:
        yield _event({"token": token})
    yield _event(_ANSWER, "answer")
    yield "data: [DONE]\n\n"


def _refusal(status: int, code: str, **headers: str) -> Response:
    problem = {
        "type": f"urn:reference:problem:{code}",
        "title": code,
        "status": status,
        "code": code,
        "detail": "query: there is none",
        "request_id": "1",
    }
    headers = {"X-Request-ID": "1", **headers}
    return JSONResponse(problem, status, headers, media_type="application/problem+json")


async def _wrong_method(_: Request, __: Exception) -> Response:
    return _refusal(405, "method_not_allowed", Allow="POST")


async def _query(_: Request) -> Response:
    return JSONResponse(_ANSWER)


app = Starlette(
    routes=[
        Route("/query", _query, methods=["POST"]),
        Route("/query/stream", _stream, methods=["POST"]),
    ],
    exception_handlers={405: _wrong_method},
)
