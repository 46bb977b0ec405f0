"""Dependencies of routes, and OpenAPI's entries for their errors.

The dependencies are `async`, though none waits: FastAPI runs others in a thread, which costs 0.1 ms each.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from app.http.openai_schemas import ErrorResponse
from app.http.schemas import Problem
from app.http.sse import StreamTimes
from app.query.engine import RagQueryEngine
from app.serving.index_manager import IndexManager


async def get_manager(request: Request) -> IndexManager:
    """Return the manager of the served index."""
    manager: IndexManager = request.state.manager
    return manager


ManagerDep = Annotated[IndexManager, Depends(get_manager)]


async def get_engine(request: Request) -> RagQueryEngine:
    """Return the engine of the index that is served now."""
    # Not by way of the one above, which would cost 0.05 ms.
    manager: IndexManager = request.state.manager
    return manager.current.engine


EngineDep = Annotated[RagQueryEngine, Depends(get_engine)]


async def get_stream_times(request: Request) -> StreamTimes:
    """Return the time limits of streams."""
    times: StreamTimes = request.state.stream_times
    return times


StreamTimesDep = Annotated[StreamTimes, Depends(get_stream_times)]


_ERRORS = {
    400: "The request is invalid; `param` names the field",
    401: "An API key is needed, or the one that was sent is not known",
    404: "There is no such model",
    413: "The body is too large",
    422: "The request is invalid; `errors` names the fields",
    429: "More requests than the rate limit allows; `Retry-After` says when to try again",
    500: "Something went wrong; the log has the reason under the request id",
    502: "The model provider failed",
    503: "Too many requests, or the index is not ready; `Retry-After` says when to try again",
    504: "The model provider was too slow",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's entries for the errors of a route."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": _ERRORS[status], "model": Problem, "content": content} for status in statuses
    }


def openai_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's entries for the errors of a route below `/v1/`."""
    return {status: {"description": _ERRORS[status], "model": ErrorResponse} for status in statuses}
