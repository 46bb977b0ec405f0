"""What is in the index."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.http.routes.dependencies import ServedIndexDep, problems
from app.http.schemas import DocumentsResponse

router = APIRouter(tags=["documents"], responses=problems(401, 500, 503))


@router.get("/documents", summary="List the documents of the served index", response_model=DocumentsResponse)
async def documents(served: ServedIndexDep) -> Response:
    """Also those that could not be read, with the reason."""
    # Passed on as they are stored: parsing 100,000 of them would take 2 s.
    body = b'{"index":"%s","documents":%s}' % (served.info.id.encode(), await served.documents_json())
    return Response(body, media_type="application/json")
