"""What is in the index."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.dependencies import ServedIndexDep, problems
from app.schemas import DocumentsResponse

router = APIRouter(tags=["documents"], responses=problems(500, 503))


@router.get("/documents", summary="List the documents of the served index")
async def documents(served: ServedIndexDep) -> DocumentsResponse:
    """Also those that could not be read, with the reason."""
    return DocumentsResponse(index=served.info.id, documents=await served.read_documents())
