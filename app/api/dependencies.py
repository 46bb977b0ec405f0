"""What routes are given."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from app.engine import RagQueryEngine
from app.index_manager import IndexManager, ServedIndex
from app.schemas import Problem


def get_manager(request: Request) -> IndexManager:
    manager: IndexManager = request.state.manager
    return manager


ManagerDep = Annotated[IndexManager, Depends(get_manager)]


def get_served_index(manager: ManagerDep) -> ServedIndex:
    return manager.current


ServedIndexDep = Annotated[ServedIndex, Depends(get_served_index)]


def get_engine(served: ServedIndexDep) -> RagQueryEngine:
    return served.engine


EngineDep = Annotated[RagQueryEngine, Depends(get_engine)]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's entries for the errors of a route."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    titles = {
        413: "The body is too large",
        422: "The request is invalid; `errors` names the fields",
        500: "Something went wrong; the log has the reason under the request id",
        502: "The model provider failed",
        503: "The index is not ready; `Retry-After` says when to try again",
        504: "The model provider was too slow",
    }
    return {
        status: {"description": titles[status], "model": Problem, "content": content} for status in statuses
    }
