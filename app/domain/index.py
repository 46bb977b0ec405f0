"""An index that is served, and whether it is ready."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel


class IndexInfo(BaseModel):
    id: str
    documents: int
    chunks: int
    built_at: str
    embedding_model: str


class HealthStatus(StrEnum):
    OK = "ok"
    STARTING = "starting"
    BUILDING = "building"
    FAILED = "failed"
    DRAINING = "draining"


class HealthResponse(BaseModel):
    status: HealthStatus
    index_ready: bool
    index: IndexInfo | None = None
    detail: str | None = None
