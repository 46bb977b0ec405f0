"""The list of the documents in the index."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.http.routes.dependencies import ManagerDep, problems
from app.http.schemas import DocumentsResponse, encode_documents

router = APIRouter(tags=["documents"], responses=problems(401, 500, 503))


@router.get("/documents", summary="List the documents of the served index", response_model=DocumentsResponse)
async def documents(manager: ManagerDep) -> Response:
    """Return all documents, also those that could not be read, with the reason."""
    return Response(await manager.current.listing(encode_documents), media_type="application/json")
