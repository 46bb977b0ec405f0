"""Asking."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.dependencies import EngineDep, problems
from app.schemas import QueryRequest, QueryResponse, RetrieveResponse

router = APIRouter(tags=["query"], responses=problems(413, 422, 500, 502, 503, 504))


@router.post("/query", summary="Answer a question from the documents")
async def query(request: QueryRequest, engine: EngineDep) -> QueryResponse:
    """The answer cites its passages: `[1]` in it is the citation with marker 1."""
    return await engine.answer(request)


@router.post("/retrieve", summary="Find the passages for a question")
async def retrieve(request: QueryRequest, engine: EngineDep) -> RetrieveResponse:
    """The same passages that `/query` would use, without an answer. None is left out for a low score."""
    return await engine.search(request)
