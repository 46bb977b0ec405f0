"""What goes over HTTP."""

from __future__ import annotations

from pydantic import (
    BaseModel,
)

from app.domain.answer import Citation
from app.domain.document import DocumentRecord


class CitationsEvent(BaseModel):
    """The first event of a stream: what the answer will rest on."""

    citations: list[Citation]
    sources: list[str]
    index: str


class DocumentsResponse(BaseModel):
    index: str
    documents: list[DocumentRecord]


class LivenessResponse(BaseModel):
    status: str = "ok"


class FieldProblem(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457, with a code for programs and the request's id."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    errors: list[FieldProblem] | None = None
