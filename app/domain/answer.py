"""An answer and what it cites."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, Field


class Citation(BaseModel):
    """A passage that was found; `[marker]` in the answer refers to it."""

    marker: int = Field(ge=1)
    document: str
    page: int | None
    heading: str | None
    text: str
    score: float
    chunk_id: str


class AnswerStatus(StrEnum):
    ANSWERED = "answered"
    NO_CONTEXT = "no_context"


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class RetrievalTimings(BaseModel):
    """Milliseconds."""

    embed: float
    retrieve: float
    total: float


class Timings(BaseModel):
    """Milliseconds."""

    embed: float
    retrieve: float
    generate: float
    total: float


class RetrieveResponse(BaseModel):
    citations: list[Citation]
    index: str
    timings_ms: RetrievalTimings


class QueryResponse(BaseModel):
    answer: str
    status: AnswerStatus
    sources: list[str]
    citations: list[Citation]
    model: str
    index: str
    usage: Usage | None
    timings_ms: Timings
