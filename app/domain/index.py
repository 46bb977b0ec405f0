"""The index that is served, and the readiness of the service."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class IndexInfo:
    """Facts about an index, for operators.

    Attributes:
        documents: how many could be read.
        built_at: ISO 8601, in UTC.
    """

    id: str
    documents: int
    chunks: int
    built_at: str
    embedding_model: str


class HealthStatus(StrEnum):
    """State of the service; it answers queries only when it is `ok`."""

    OK = "ok"
    STARTING = "starting"
    BUILDING = "building"
    FAILED = "failed"
    DRAINING = "draining"


@dataclass(frozen=True)
class Health:
    """Readiness of the service.

    Attributes:
        index: the one that is served; None where queries are not answered.
        detail: what is wrong or being done; None where all is well.
    """

    status: HealthStatus
    index: IndexInfo | None = None
    detail: str | None = None

    @property
    def index_ready(self) -> bool:
        return self.status is HealthStatus.OK
